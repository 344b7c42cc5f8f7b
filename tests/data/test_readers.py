"""What each reader reads, and what it says of what cannot be read."""

import bz2
import gzip
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from davinci.__main__ import main
from davinci.data.operations import Places, read_chain
from davinci.data.tally import Tally
from davinci.errors import UserError

ROWS = [
    {"text": f"Text {one}, ünïcode.", "id": f"r{one}", "url": f"http://h/{one}", "year": 2000 + one} for one in range(9)
]


def read(folder, reader, strict=False, **parameters):
    """(documents, tally, number of parts) of a reader on the files of a folder."""
    (one,) = read_chain([{reader: parameters}], "chain")
    places = Places(folder / "step", folder / "cache", folder, folder)
    tally = Tally(strict)
    parts = json.loads(json.dumps(one.parts(places)))
    found = [document for part in parts for document in one.read(part, places, tally)]
    assert json.dumps(one.provenance(parts))
    return found, tally, len(parts)


def lines(rows=ROWS):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


COMPRESS = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": lambda content: pa.compress(content, "zstd", asbytes=True),
    ".bz2": bz2.compress,
}


@pytest.mark.parametrize("suffix", COMPRESS)
def test_jsonl(tmp_path, suffix):
    (tmp_path / f"a.jsonl{suffix}").write_bytes(COMPRESS[suffix](lines()))
    found, tally, _ = read(tmp_path, "jsonl", paths="*.jsonl*", origin=["url", "year"])
    assert [one.text for one in found] == [row["text"] for row in ROWS]
    assert [one.id for one in found][:2] == [f"a.jsonl{suffix}:0", f"a.jsonl{suffix}:{len(lines(ROWS[:1]))}"]
    assert found[3].origin == {
        "file": f"a.jsonl{suffix}",
        "offset": len(lines(ROWS[:3])),
        "url": "http://h/3",
        "year": 2003,
    }
    assert not tally.dropped


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".bz2"])
def test_jsonl_of_several_streams_and_of_half_of_one(tmp_path, suffix):
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(COMPRESS[suffix](lines(ROWS[:4])) + COMPRESS[suffix](lines(ROWS[4:])))
    assert len(read(tmp_path, "jsonl", paths=path.name)[0]) == 9
    path.write_bytes(COMPRESS[suffix](lines(ROWS * 400))[:-20])
    with pytest.raises(UserError, match=rf"a\.jsonl{suffix}: damaged, or cut short"):
        read(tmp_path, "jsonl", paths=path.name)


@settings(max_examples=30)
@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=30), min_size=1, max_size=12),
    st.integers(1, 60),
    st.booleans(),
)
def test_however_a_file_is_cut_each_line_is_read_once(tmp_path_factory, texts, part_bytes, newline):
    folder = tmp_path_factory.mktemp("cut")
    content = lines([{"text": f"x{text}"} for text in texts])
    (folder / "a.jsonl").write_bytes(content if newline else content.removesuffix(b"\n"))
    found, _, parts = read(folder, "jsonl", paths=["a.jsonl"], part_bytes=part_bytes)
    assert [one.text for one in found] == [f"x{text}" for text in texts]
    assert parts == -(-(folder / "a.jsonl").stat().st_size // part_bytes)


def test_a_line_that_is_not_json_is_counted_with_its_place(tmp_path):
    bad = (
        lines(ROWS[:3])
        + b'{"text": "cut\n'
        + b"\n"
        + lines(ROWS[3:5])
        + b'[1]\n{"txt": "x"}\n{"text": 3}\n{"text": " "}\n'
    )
    (tmp_path / "a.jsonl").write_bytes(bad)
    found, tally, _ = read(tmp_path, "jsonl", paths="a.jsonl", part_bytes=70)
    assert len(found) == 5 and tally.counted == {"empty rows": 1}
    assert tally.dropped == {
        "unreadable: not JSON": 1,
        "unreadable: no object with fields": 1,
        "unreadable: no field text": 1,
        "unreadable: field text is no text": 1,
    }
    (sample,) = tally.to_json()["samples"]["unreadable: not JSON"]
    assert sample["id"] == f"{tmp_path}/a.jsonl:4" and sample["text"] == '{"text": "cut\n'
    for line, problem in ((7, "no object with fields"), (8, "no field text"), (9, "field text is no text")):
        (line_found,) = [one["id"].rpartition(":")[2] for one in tally.to_json()["samples"][f"unreadable: {problem}"]]
        assert int(line_found) == line + 1, problem
    with pytest.raises(UserError, match=r"a\.jsonl:4: not JSON \(--strict\)"):
        read(tmp_path, "jsonl", strict=True, paths="a.jsonl", part_bytes=70)


def test_a_build_says_what_it_could_not_read_and_where(tmp_path, capsys):
    (tmp_path / "a.jsonl").write_bytes(b"".join(lines(ROWS) + b"{\n" for _ in range(5)) + b"[1]\n")
    source = {"domain": "general", "depths": ["L0", "L2"], "chain": [{"jsonl": {"paths": ["a.jsonl"]}}, "length"]}
    pool = {"name": "p", "tokenizer": "p", "vocab_size": 260, "sources": {"s": source}}
    (tmp_path / "p.yaml").write_text(json.dumps(pool))
    main(["data", "build", f"{tmp_path}/p.yaml", "--store", f"{tmp_path}/store", "--workers", "1"])
    said = [line for line in capsys.readouterr().out.splitlines() if "not read" in line]
    assert len(said) == 2
    assert said[0] == f"source s: not read: no object with fields: {tmp_path}/a.jsonl:{5 * len(ROWS) + 6}"
    assert said[1].startswith("source s: not read: not JSON: ") and said[1].endswith(" and 2 more")


def test_rows_with_ids_groups_and_questions(tmp_path):
    rows = [{"q": "Why?", "a": "So.", "k": 7, "book": "b"}, {"q": "", "a": "half", "k": 8, "book": "b"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, _, _ = read(tmp_path, "jsonl", paths="a.jsonl", text="a", question="q", id="k", group="book")
    assert [(one.id, one.split_key, one.text, one.question) for one in found] == [
        ("7", "b", "Why?\nSo.", "Why?\n"),
        ("8", "b", "half", ""),
    ]


def test_what_is_too_large_is_dropped(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(lines([{"text": "x" * 5000}, {"text": "y" * 150}, {"text": "z"}]))
    for part_bytes in (1 << 20, 40):
        found, tally, _ = read(tmp_path, "jsonl", paths="a.jsonl", largest=100, part_bytes=part_bytes)
        assert [one.text for one in found] == ["z"] and tally.dropped == {"larger than 100 bytes": 2}
    found, tally, _ = read(tmp_path, "files", paths="a.jsonl", largest=100)
    assert not found and tally.dropped == {"larger than 100 bytes": 1}


def test_parquet(tmp_path):
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet", row_group_size=2)
    found, _, parts = read(tmp_path, "parquet", paths="*.parquet", origin=["url"], part_bytes=1)
    assert parts == 5 and [one.text for one in found] == [row["text"] for row in ROWS]
    assert found[8].id == "a.parquet:8" and found[8].origin == {"file": "a.parquet", "row": 8, "url": "http://h/8"}
    assert read(tmp_path, "parquet", paths="*.parquet", origin=["url"])[0] == found
    with pytest.raises(UserError, match=r"a\.parquet: no column texts; nearest: text"):
        read(tmp_path, "parquet", paths="*.parquet", text="texts")
    content = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"a\.parquet: no Parquet file, or cut short"):
        read(tmp_path, "parquet", paths="*.parquet")


def test_files(tmp_path):
    for name, content in {"b/x.txt": "Hé.", "a.txt": "One.", "b/y.md": "No.", "empty.txt": " \n"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    (tmp_path / "latin.txt").write_bytes("né ÿ".encode("latin-1"))
    found, tally, parts = read(tmp_path, "files", paths="**/*.txt")
    assert parts == 4 and tally.counted == {"empty files": 1}
    assert {one.id: one.text for one in found} == {"a.txt": "One.", "b/x.txt": "Hé.", "latin.txt": "né ÿ"}
    assert {one.id: one.origin.get("bytes") for one in found} == {"a.txt": None, "b/x.txt": None, "latin.txt": 1}
    assert read(tmp_path, "files", paths=str(tmp_path / "**/*.txt"))[0] == found  # absolute: the same names
    assert [one.id for one in read(tmp_path, "files", paths=["**/*.txt", "b/*"], without=["*l*"])[0]] == [
        "a.txt",
        "b/x.txt",
        "b/y.md",
    ]
    with pytest.raises(UserError, match=r"paths: c/\* matches no file"):
        read(tmp_path, "files", paths=["a.txt", "c/*"])
    with pytest.raises(UserError, match="without leaves none of the 1 files"):
        read(tmp_path, "files", paths="a.txt", without=["*"])


def test_a_file_that_goes_while_it_is_read_is_named(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    (one,) = read_chain([{"files": {"paths": "a.txt"}}], "chain")
    places = Places(tmp_path, tmp_path, tmp_path, tmp_path)
    (part,) = one.parts(places)
    (tmp_path / "a.txt").unlink()
    with pytest.raises(UserError, match=r"a\.txt: cannot be read \(No such file"):
        list(one.read(part, places, Tally()))


def test_very_many_files_are_few_parts_that_stay(tmp_path):
    for one in range(2100):
        (tmp_path / f"{one:04d}.txt").write_text("x")
    (one,) = read_chain([{"files": {"paths": "*.txt"}}], "chain")
    places = Places(tmp_path, tmp_path, tmp_path, tmp_path)
    before = [json.dumps(part) for part in one.parts(places)]
    assert 400 < len(before) < 1100
    (tmp_path / "1000.txt").unlink()
    after = [json.dumps(part) for part in one.parts(places)]
    assert len(set(before) - set(after)) <= 2


def test_pdf(tmp_path):
    (tmp_path / "a.pdf").write_bytes(pdf("Hello from a page."))
    (tmp_path / "b.pdf").write_bytes(b"%PDF-1.4 nothing")
    (tmp_path / "c.pdf").write_bytes(pdf("An earlier version.") + b"7 0 obj\n" + b"more " * 300)
    (tmp_path / "d.pdf").write_bytes(b"%PDF-1.4 nothing\n%%EOF\n" + b"\0" * 2000)
    found, tally, _ = read(tmp_path, "pdf", paths="*.pdf")
    assert [(one.text.strip(), one.origin) for one in found] == [("Hello from a page.", {"file": "a.pdf", "pages": 1})]
    unread, cut = sorted(tally.dropped)
    assert cut == "unreadable: no PDF, or cut short (no %%EOF at its end)" and tally.dropped[cut] == 2
    assert unread.startswith("unreadable: no PDF that can be read") and tally.dropped[unread] == 1


def pdf(text):
    """A file of one page that shows a line."""
    stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
        b"/Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
    ]
    content, places = b"%PDF-1.4\n", []
    for number, one in enumerate(objects, 1):
        places.append(len(content))
        content += b"%d 0 obj\n%s\nendobj\n" % (number, one)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    end = b"trailer\n<< /Size 5 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % len(content)
    return content + b"xref\n0 5\n0000000000 65535 f \n" + table + end


@pytest.mark.parametrize("packed", [False, True])
def test_warc(tmp_path, packed):
    from warcio.statusandheaders import StatusAndHeaders
    from warcio.warcwriter import WARCWriter

    path = tmp_path / ("a.warc.gz" if packed else "a.warc")
    with path.open("wb") as file:
        writer = WARCWriter(file, gzip=packed)
        for number, (status, kind, body) in enumerate(
            [
                ("200 OK", "text/html; charset=utf-8", "<p>é</p>".encode()),
                ("200 OK", "text/html; charset=iso-8859-1", "<p>é</p>".encode("latin-1")),
                ("404 Not Found", "text/html", b"no"),
                ("200 OK", "image/png", b"\x89PNG"),
            ]
        ):
            http = StatusAndHeaders(status, [("Content-Type", kind)], protocol="HTTP/1.1")
            headers = {"WARC-Date": "2024-01-02T03:04:05Z", "WARC-Record-ID": f"<urn:uuid:{number}>"}
            url = f"http://www.example.org/{number}"
            writer.write_record(
                writer.create_warc_record(
                    url, "response", io.BytesIO(body), http_headers=http, warc_headers_dict=headers
                )
            )
    found, tally, _ = read(tmp_path, "warc", paths="*.warc*")
    assert [(one.id, one.text, one.split_key) for one in found] == [
        ("urn:uuid:0", "<p>é</p>", "www.example.org"),
        ("urn:uuid:1", "<p>é</p>", "www.example.org"),
    ]
    about = {"file": path.name, "date": "2024-01-02T03:04:05Z", "type": "text/html"}
    assert found[0].origin == {**about, "url": "http://www.example.org/0"}
    assert found[1].origin == {**about, "url": "http://www.example.org/1", "bytes": 1, "charset": "iso-8859-1"}
    assert tally.counted == {"responses without success": 1, "responses of other types": 1}
    whole = path.read_bytes()
    last = len(whole) - whole.rindex(b"\x1f\x8b" if packed else b"WARC/1.0")
    for cut in range(6, last, 31):
        path.write_bytes(whole[:-cut])
        with pytest.raises(UserError, match="no WARC file, damaged, or cut short"):
            read(tmp_path, "warc", paths="*.warc*")
    path.write_bytes(b"something else entirely\n")
    with pytest.raises(UserError, match="no WARC file, damaged, or cut short"):
        read(tmp_path, "warc", paths="*.warc*")


def test_huggingface(tmp_path):
    import datasets

    rows = datasets.Dataset.from_list(ROWS)
    rows.save_to_disk(str(tmp_path / "saved"))
    datasets.DatasetDict({"train": rows, "test": rows.select([0])}).save_to_disk(str(tmp_path / "both"))
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain/train.jsonl").write_bytes(lines())
    for name in ("saved", "both", "plain"):
        found, _, parts = read(tmp_path, "huggingface", dataset=name, origin=["url"], part_bytes=200)
        assert parts > 1 and [one.text for one in found] == [row["text"] for row in ROWS]
        assert found[1].id == f"{name}/train:1"
        assert found[1].origin == {"dataset": name, "split": "train", "row": 1, "url": "http://h/1"}
    assert len(read(tmp_path, "huggingface", dataset="both", split="test")[0]) == 1
    with pytest.raises(UserError, match="no split tests; nearest: test"):
        read(tmp_path, "huggingface", dataset="both", split="tests")
    with pytest.raises(UserError, match="has no column texts; nearest: text"):
        read(tmp_path, "huggingface", dataset="saved", text="texts")


def test_a_dataset_that_is_not_there_is_one_line(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"huggingface: nobody/nothing cannot be read \("):
        read(tmp_path, "huggingface", dataset="nobody/nothing")
