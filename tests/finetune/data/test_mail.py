"""Mails as they come: encodings, parts, HTML; and what of them is not shown to a model."""

from __future__ import annotations

import base64
import quopri

import pytest

from finetune.data.mail import decoded, own_words, read_mail, words_of


def raw(*lines: str | bytes) -> bytes:
    return b"\r\n".join(line.encode() if isinstance(line, str) else line for line in lines)


def multipart(kind: str, *parts: tuple[str, bytes]) -> bytes:
    lines: list[str | bytes] = [f'Content-Type: multipart/{kind}; boundary="=_x"', "", "This is for old programs."]
    for content_type, content in parts:
        lines += ["--=_x", f"Content-Type: {content_type}", "", content]
    return raw("From: a@b.org", "Subject: Parts", "MIME-Version: 1.0", *lines, "--=_x--", "")


def test_of_the_headers_only_the_subject_is_read() -> None:
    mail = read_mail(
        raw(
            "From ann@list.org  Thu Aug 22 12:36:23 2002",
            "Received: from localhost (localhost [127.0.0.1])",
            "X-Spam-Status: Yes, hits=15.1",
            "List-Id: <users.list.org>",
            "From: Ann Other <Ann@List.org>",
            "Subject: [ILUG] Re: Fwd: [users]  a new",
            "\tkernel",
            "",
            "It boots.",
        )
    )
    assert (mail.subject, mail.sender, mail.text) == ("a new kernel", "ann@list.org", "a new kernel\nIt boots.")


@pytest.mark.parametrize(
    ("charset", "encoding"),
    [("iso-8859-1", "quoted-printable"), ("utf-8", "base64"), ("windows-1252", "8bit"), ("big5", "base64")],
)
def test_encodings_are_undone(charset: str, encoding: str) -> None:
    text = "垃圾郵件" if charset == "big5" else "naïve café"
    content = text.encode(charset)
    coded = {"base64": base64.encodebytes, "quoted-printable": quopri.encodestring}.get(encoding, bytes)(content)
    word = f"=?{charset}?b?{base64.b64encode(content).decode()}?="
    mail = read_mail(
        raw(
            f"Subject: About {word}!",
            f"Content-Type: text/plain; charset={charset}",
            f"Content-Transfer-Encoding: {encoding}",
            "",
            coded,
        )
    )
    assert mail.subject.replace(" ", "") == f"About{text}!".replace(" ", "")
    assert mail.body == text


@pytest.mark.parametrize("charset", ["utf-8", "nobody-knows", "us-ascii", "DEFAULT_CHARSET", None])
def test_an_encoding_that_is_wrong_or_unknown_is_guessed(charset: str | None) -> None:
    assert decoded("café".encode("cp1252"), charset) == "café"
    assert decoded("café".encode(), charset) == "café"


def test_latin_1_has_no_control_characters() -> None:
    assert decoded(b"\x93so\x94 \x95 caf\xe9", "iso-8859-1") == "“so” • café"


def test_the_plain_part_is_taken_and_an_attachment_is_not() -> None:
    html = b"<html><body>Hello <b>HTML</b></body></html>"
    both = multipart("alternative", ("text/plain", b"Hello text"), ("text/html", html))
    assert read_mail(both).body == "Hello text"
    attached = ('text/plain\r\nContent-Disposition: attachment; filename="a.txt"', b"Attached")
    assert read_mail(multipart("mixed", ("text/plain", b"Read"), attached, ("image/gif", b"GIF89a"))).body == "Read"


def test_html_is_read_where_the_plain_part_says_nothing() -> None:
    page = b"<html><head><title>x</title><style>p{}</style></head><body>Buy<p>it&nbsp;now</body></html>"
    footer = b"_______________________________________________\nIlug mailing list"
    assert read_mail(multipart("mixed", ("text/html", page), ("text/plain", b" \n"))).body == "Buy\nit now"
    assert read_mail(multipart("mixed", ("text/html", page), ("text/plain", b"\n"), ("text/plain", b""))).body
    assert read_mail(multipart("mixed", ("text/html", page), ("text/plain", footer))).body == "Buy\nit now"
    assert read_mail(raw("Subject: s", "Content-Type: text/plain", "", page)).body == "Buy\nit now"


def test_words_are_read_as_a_reader_sees_them() -> None:
    assert (
        words_of("V<!-- x -->ia<b>g</b>ra<script>var a = '<p>';</script> &eacute;&#233;<br>next") == "Viagra éé\nnext"
    )
    assert words_of("<![if !supportLists]>a<![endif]><p>b</style>c") == "a\nbc"
    assert words_of("<" * 50 + "a").endswith("a")


def test_what_others_wrote_is_left_out() -> None:
    text = (
        "Hello all,\n\nOn Monday, Bo <bo@list.org> wrote:\n> Does it boot?\n|> Really?\n"
        "Yes:   it\tdoes. Ask cy@list.org\n-- \nAnn, chief of boots\n"
    )
    assert own_words(text) == "Hello all,\nYes: it does. Ask (address)"
    assert own_words(f"Hello\n{'_' * 47}\nusers mailing list\nusers@list.org\n") == "Hello"
    newsletter = f"{'_' * 60}\n" + "News of today\n" * 8
    assert own_words(newsletter) == newsletter.strip()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n\n",
        b"no header at all",
        b"Subject: =?utf-8?b?!!!?=\nFrom: <<<\n\nx",
        b"Content-Type: multipart/mixed\n\nno boundary",
        b'Content-Type: multipart/mixed; boundary="a"\n\n--a\nContent-Type: text/html; charset="="\n\n<\xff<!',
        b"Content-Type: text/plain\nContent-Transfer-Encoding: base64\n\n%%%",
        b"Subject: \xff\xfe\nContent-Type: text/plain; charset=utf-7\n\n+AAAA \xff",
        bytes(range(256)) * 4,
    ],
)
def test_what_is_damaged_is_read_as_far_as_it_goes(content: bytes) -> None:
    assert isinstance(read_mail(content).text, str)


def test_a_mail_may_be_empty() -> None:
    mail = read_mail(raw("From: a@b.org", "Subject: ", "", ""))
    assert (mail.text, mail.sender) == ("", "a@b.org")
