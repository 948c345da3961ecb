"""Raw mail → the subject and what its sender wrote, as text.

Headers are left out, all but the subject: in a collected corpus they tell how it was collected (the filter's own
`X-Spam-Status`, the servers it came through, the mailing list, the year), and a model would learn that instead. For the
same reason the body loses what others wrote: quotations, the list's footer, and the signature, by which a sender of the
training mails would be known again. Addresses become `(address)`: who made a corpus public replaced those in it.
"""

from __future__ import annotations

import email.errors
import email.header
import email.utils
import re
from dataclasses import dataclass
from email.message import Message
from html.parser import HTMLParser

LIST_MARK = re.compile(r"\[[^\[\]]{1,40}\]")
"""`[ILUG]`: put before the subject by a mailing list."""
ANSWER_MARK = re.compile(r"^\s*((re|fwd?|aw|sv|vs|tr)\s*(\[\d+\])?\s*:\s*)+", re.IGNORECASE)
ADDRESS = re.compile(r"[\w.+%=-]{1,64}@[\w-]+(\.[\w-]+)*")
FOOTER = re.compile(r"^(_{20,}|-{3,}.{0,3}Yahoo! Groups Sponsor.*|-{5,} ?Original Message ?-{5,}.*)$")
LONGEST_FOOTER = 6
"""Lines."""
INTRODUCES_A_QUOTATION = re.compile(r"\b(wrote|writes|said|schrieb|a écrit)\s?:$")


@dataclass(frozen=True)
class Mail:
    subject: str
    """Without the marks of lists and of answers."""
    sender: str
    """Address in small letters, or ""."""
    body: str

    @property
    def text(self) -> str:
        return "\n".join(filter(None, [self.subject, self.body]))


def read_mail(raw: bytes) -> Mail:
    """Never fails: what is damaged is read as far as it goes."""
    message = email.message_from_bytes(raw)
    subject = ANSWER_MARK.sub("", LIST_MARK.sub("", header(message, "Subject")).strip())
    sender = email.utils.parseaddr(header(message, "From"))[1].lower()
    return Mail(without_addresses(" ".join(subject.split())), sender, body(message))


def header(message: Message, name: str) -> str:
    """A header's text, with its encoded words (`=?iso-8859-1?q?caf=E9?=`) decoded."""
    found = message.get(name, "")
    try:
        parts = email.header.decode_header(found)
    except (email.errors.HeaderParseError, ValueError):
        parts = [(str(found), None)]
    return "".join(part if isinstance(part, str) else decoded(part, charset) for part, charset in parts)


def body(message: Message) -> str:
    """What the sender wrote: the plain parts, or where they say nothing, the HTML's words."""
    plain, html = [], []
    for part in message.walk():
        if part.get_content_maintype() != "text" or part.get_content_disposition() == "attachment":
            continue
        content = part.get_payload(decode=True)
        text = decoded(content if isinstance(content, bytes) else b"", part.get_content_charset())
        is_html = part.get_content_subtype() == "html" or text.lstrip()[:200].lower().startswith(("<html", "<!doctype"))
        (html if is_html else plain).append(words_of(text) if is_html else text)
    return own_words("\n".join(plain)) or own_words("\n".join(html))


def decoded(content: bytes, charset: str | None) -> str:
    """Text in the encoding it claims; in UTF-8 or Windows-1252 where it claims none, a wrong one, or an unknown one.

    What claims Latin-1 is read as Windows-1252, which has letters where Latin-1 has control characters, as browsers do.
    """
    claimed = (charset or "utf-8").lower()
    for name in ("cp1252" if claimed in ("iso-8859-1", "latin-1") else claimed, "utf-8"):
        try:
            return content.decode(name)
        except (LookupError, ValueError):  # an unknown encoding, or bytes that it does not have
            continue
    return content.decode("cp1252", errors="replace")


def own_words(text: str) -> str:
    """Without quotations, signature and footer; blank lines and blanks put together."""
    kept: list[str] = []
    lines = text.replace("\r\n", "\n").split("\n")
    for number, line in enumerate(lines):
        stripped = line.strip()
        ends = kept or number >= len(lines) - LONGEST_FOOTER  # some newsletters begin with such a line
        if line in ("-- ", "--") or (ends and FOOTER.match(stripped)):
            break
        if not stripped or stripped.startswith((">", "|>")):
            continue
        if not (stripped.endswith(":") and INTRODUCES_A_QUOTATION.search(stripped)):
            kept.append(without_addresses(" ".join(stripped.split())))
    return "\n".join(kept)


def without_addresses(line: str) -> str:
    return ADDRESS.sub("(address)", line) if "@" in line else line


def words_of(html: str) -> str:
    reader = _Words()
    try:
        reader.feed(html)
        reader.close()
    except (AssertionError, ValueError):  # what HTMLParser raises for some declarations of spam
        pass
    return "".join(reader.found)


class _Words(HTMLParser):
    """The text of a page. Tags and comments within a word leave it whole, as a reader sees it."""

    UNSEEN = ("script", "style", "title")
    BREAKS = ("p", "br", "div", "tr", "td", "th", "li", "ul", "ol", "table", "hr", "h1", "h2", "h3", "h4", "center")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._unseen = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._unseen += tag in self.UNSEEN
        if tag in self.BREAKS:
            self.found.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self._unseen = max(0, self._unseen - (tag in self.UNSEEN))
        if tag in self.BREAKS:
            self.found.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            # A line's end in the source is a blank to the reader.
            self.found.append(" ".join(data.split("\n")))
