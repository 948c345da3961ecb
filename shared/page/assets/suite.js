// What the page does by itself: the header's meter, copying and saving results, links that restore inputs,
// and appending a clicked token to the prompt. Nothing here talks to any host but this one.
(() => {
  const LONGEST_LINK = 4000; // characters of a query string that proxies and chat programs still pass on

  // Gradio reports changes while it builds the page; only a person's count.
  let touched = false;
  let tooLong = false;
  for (const kind of ["pointerdown", "keydown"]) addEventListener(kind, () => { touched = true; }, { capture: true });

  const suite = {
    // As it was when the page was opened.
    address: Object.fromEntries(new URL(location.href).searchParams),

    tab(name) {
      if (!touched) return;
      const url = new URL(location.href);
      url.searchParams.set("tab", name);
      history.replaceState(null, "", url);
    },

    // Writes a form's inputs into the address, so that copying the address shares them.
    link(form, tab, names, values) {
      if (!touched) return;
      const url = new URL(location.href);
      for (const key of [...url.searchParams.keys()]) if (!key.startsWith("__")) url.searchParams.delete(key);
      url.searchParams.set("tab", tab);
      url.searchParams.set("form", form);
      names.forEach((name, i) => {
        const value = values[i];
        if (value === null || value === undefined || value.path) return; // a file is on the server, not in a link
        const plain = value && value.data ? value.data : value;
        url.searchParams.set(name, typeof plain === "string" ? plain : JSON.stringify(plain));
      });
      tooLong = url.search.length > LONGEST_LINK;
      if (tooLong) url.search = `?tab=${encodeURIComponent(tab)}`;
      history.replaceState(null, "", url);
    },

    async memory() {
      const meter = document.querySelector(".suite-header .meter > i");
      if (!meter || document.hidden) return;
      try {
        const health = await (await fetch("health")).json();
        meter.style.width = `${Math.min(100, (100 * health.memory.bytes_in_use) / health.memory.budget_bytes)}%`;
        const megabytes = (n) => (n / 1e6).toLocaleString("en", { maximumFractionDigits: 0 });
        document.querySelector(".suite-header .memory-text").textContent =
          `${megabytes(health.memory.bytes_in_use)} of ${megabytes(health.memory.budget_bytes)} MB`;
        const why = { answers: "the Hub answers", asking: "asking the Hub", off: "no network is used" };
        document.querySelector(".suite-header .profile").textContent =
          `profile: ${health.profile} (${why[health.hub.state] || health.hub.reason})`;
      } catch { /* the server is restarting; the next look will tell */ }
    },

    theme() {
      const dark = document.body.classList.toggle("dark");
      try { localStorage.setItem("suite-theme", dark ? "dark" : "light"); } catch { /* private window */ }
    },

    append(token) {
      const field = document.querySelector("#next_token-prompt textarea");
      if (!field) return;
      Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value").set.call(field, field.value + token);
      field.dispatchEvent(new Event("input", { bubbles: true }));
    },

    play(button) {
      const player = button.closest(".shown").querySelector("audio");
      if (!player) return;
      player.currentTime = Number(button.dataset.at);
      player.play().catch(() => { /* the browser cannot play what the model could hear */ });
    },

    save(name, text) {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([text], { type: "text/plain;charset=utf-8" }));
      link.download = name;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    },

    say(button, text) {
      const label = button.dataset.label || (button.dataset.label = button.textContent);
      button.textContent = text;
      setTimeout(() => { button.textContent = label; }, 1600);
    },

    async copy(button, text) {
      try {
        await navigator.clipboard.writeText(text);
      } catch { // not a secure origin: the old way
        const area = document.createElement("textarea");
        area.value = text;
        document.body.append(area);
        area.select();
        document.execCommand("copy");
        area.remove();
      }
      suite.say(button, "Copied");
    },
  };

  // An update draws a fold anew: it stays as its reader left it.
  const unfolded = new Map();
  document.addEventListener("click", (event) => {
    const fold = event.target.closest("details[data-fold] > summary")?.parentElement;
    if (fold) unfolded.set(fold.dataset.fold, !fold.open); // the click turns it after this
  });
  new MutationObserver(() => {
    for (const fold of document.querySelectorAll("details[data-fold]:not([data-drawn])")) {
      fold.dataset.drawn = "";
      if (unfolded.has(fold.dataset.fold)) fold.open = unfolded.get(fold.dataset.fold);
    }
  }).observe(document, { childList: true, subtree: true });

  // The token goes from the field into one request, and is forgotten here before that is answered.
  const publish = async (button) => {
    const form = button.closest(".publish-form"), said = form.querySelector("[role=status]");
    const field = (name) => form.querySelector(`[name=${name}]`);
    const wanted = {
      run: document.querySelector("[data-run]")?.dataset.run || "", repo: field("repo").value.trim(),
      token: field("token").value.trim(), public: field("public").checked, force: field("force").checked,
    };
    field("token").value = "";
    button.disabled = true;
    said.textContent = "Publishing…";
    try {
      const sent = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(wanted) };
      const reader = (await fetch("finetune/publish", sent)).body.pipeThrough(new TextDecoderStream()).getReader();
      said.textContent = "";
      for (let part = await reader.read(); !part.done; part = await reader.read()) said.textContent += part.value;
    } catch (error) {
      said.textContent = `The suite did not answer (${error.message}).`;
    }
    button.disabled = false;
  };

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-act]");
    if (!button) return;
    const act = button.dataset.act;
    if (act === "copy") suite.copy(button, button.dataset.text);
    if (act === "copy-pre") suite.copy(button, button.closest("section").querySelector("pre").textContent);
    if (act === "copy-link") {
      if (tooLong) suite.say(button, "Too long for a link");
      else suite.copy(button, location.href);
    }
    if (act === "save") suite.save(button.dataset.name, button.dataset.text);
    if (act === "play") suite.play(button);
    if (act === "append") suite.append(button.dataset.text);
    if (act === "theme") suite.theme();
    if (act === "publish") publish(button);
    if (act === "sign-in") {
      const field = button.parentElement.querySelector("input");
      const answer = await fetch("admin", { method: "POST", body: field.value });
      field.value = "";
      button.parentElement.querySelector("[role=status]").textContent =
        answer.ok ? "Signed in. The buttons below work now." : "That is not the token.";
    }
  });

  try {
    const wanted = localStorage.getItem("suite-theme");
    if (wanted && !new URL(location.href).searchParams.has("__theme")) {
      const apply = () => document.body && document.body.classList.toggle("dark", wanted === "dark");
      document.addEventListener("DOMContentLoaded", apply);
      setTimeout(apply, 400);
    }
  } catch { /* private window */ }

  window.suite = suite;
  setInterval(suite.memory, 5000);
  setTimeout(suite.memory, 1200);
})();
