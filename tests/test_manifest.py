"""Manifests: formats, places, mistakes, and that they are not held whole."""

import functools
import http.server
import json
import threading

import fsspec
import numpy as np
import pytest

pytest.importorskip("rich", reason="needs the cli extra")
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from attacker_metrics.commands import cli
from attacker_metrics.pairs.manifest import ManifestError, ManifestPairs
from attacker_metrics.pairs.sources import FailedPair, LoadedPair


def table(count: int, **extra) -> pa.Table:
    rows = range(count)
    return pa.table(
        {
            "noisy": [f"noisy{i % 2}.npy" for i in rows],
            "id": [f"{i:05}" for i in rows],
            **extra,
            "clean": [f"clean{i % 2}.npy" for i in rows],
        }
    )


@pytest.fixture
def images(tmp_path):
    for index in range(2):
        clean = np.random.default_rng(index).random((3, 16, 16), np.float32)
        np.save(tmp_path / f"clean{index}.npy", clean)
        np.save(tmp_path / f"noisy{index}.npy", 1 - 0.9 * clean)
    return tmp_path


def write(path, content: pa.Table, **settings) -> str:
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(content, path)
    else:
        pq.write_table(content, path, **settings)
    return str(path)


@pytest.mark.parametrize("name", ["m.csv", "m.parquet"])
def test_rows_are_those_of_the_file_wherever_one_begins(tmp_path, name):
    count = 100_000 if name == "m.csv" else 1000
    content = table(count, group=[f"g{i % 3}" for i in range(count)])
    settings = {} if name == "m.csv" else {"row_group_size": 70}
    pairs = ManifestPairs(write(tmp_path / name, content, **settings))
    total, digest = pairs.check()
    assert total == count
    assert ManifestPairs(pairs.location).check() == (total, digest)
    wanted = content.select(["id", "noisy", "group", "clean"])
    for start, stop in [(0, 10), (60, 300), (300, 301), (count - 5, count), (0, 3), (69, 71), (0, count)]:
        assert pairs.rows(start, stop).to_pylist() == wanted.slice(start, stop - start).to_pylist()
    with pytest.raises(ManifestError, match="has become shorter"):
        pairs.rows(count - 1, count + 1)


def test_a_row_group_at_a_time_is_held(tmp_path):
    count = 200_000
    path = write(tmp_path / "m.parquet", table(count, note=["x" * 500 + str(i) for i in range(count)]), row_group_size=1000)
    pairs = ManifestPairs(path)
    before, most = pa.total_allocated_bytes(), 0
    for start in range(0, count, 256):
        pairs.rows(start, min(start + 256, count))
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 8e6  # the file's columns are 100 MB
    pairs.check()


def test_the_digest_depends_on_every_cell(tmp_path):
    digests = set()
    for position, content in enumerate(
        [table(10), table(11), table(10, group=["a"] * 10), table(10, group=["a"] * 9 + ["b"]), table(10, other=["a"] * 10)]
    ):
        digests.add(ManifestPairs(write(tmp_path / f"{position}.csv", content)).check()[1])
    assert len(digests) == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,clean\na,b\n", "lacks the column noisy; it has id, clean"),
        ("id,clean,noisy\n", "holds no pairs"),
        ("", "cannot be read"),
        ("id,clean,noisy\na,b\n", "cannot be read.*Expected 3 columns, got 2"),
        ("id,clean,noisy\na,x,y\nb,,y\nc,x,\n , x,y\n", "row 2: clean is empty; row 3: noisy is empty; row 4: id is empty"),
        ("id,clean,noisy\na,x,y\nb,x,y\na,x,y\nb,x,y\n", "'a' in rows 1 and 3; 'b' in rows 2 and 4"),
        ("id,clean,noisy,id\na,b,c,d\n", "several columns named id"),
        ("id,clean,noisy,ms_ssim\na,b,c,d\n", "ms_ssim is the name of a score"),
    ],
)
def test_a_useless_manifest_is_refused_by_column_and_row(tmp_path, text, message):
    path = tmp_path / "m.csv"
    path.write_text(text)
    with pytest.raises(ManifestError, match=message):
        ManifestPairs(str(path), reserved=("ms_ssim",)).check()


def test_duplicates_far_apart_are_found(tmp_path):
    ids = [str(i) for i in range(50_000)]
    ids[49_999] = "7"
    content = table(50_000).set_column(1, "id", pa.array(ids))
    with pytest.raises(ManifestError, match="'7' in rows 8 and 50000"):
        ManifestPairs(write(tmp_path / "m.parquet", content)).check()


def test_ids_that_are_numbers_and_further_columns_keep_their_worth(images):
    content = pa.table({"id": [1, 2], "clean": ["clean0.npy"] * 2, "noisy": ["noisy0.npy"] * 2, "weight": [0.5, None]})
    path = write(images / "m.parquet", content)
    assert evaluate(images, "--manifest", path) == 0
    scores = pq.read_table(images / "out" / "scores.parquet")
    assert scores.column_names[:2] == ["id", "weight"]
    assert scores["id"].to_pylist() == ["1", "2"]
    assert scores["weight"].to_pylist() == [0.5, None]


def evaluate(folder, *options: str) -> int:
    return cli.main(["evaluate", "--output", str(folder / "out"), "--betas", "1", *options])


@pytest.mark.parametrize("cell", [["a", "b"], {"a": 1}, b"\xff"])
def test_a_column_that_is_neither_text_nor_a_number_is_refused_by_name(tmp_path, cell):
    with pytest.raises(ManifestError, match=r"the column thumbnail holds .*neither text nor a number; leave it out"):
        ManifestPairs(write(tmp_path / "m.parquet", table(1, thumbnail=[cell]))).check()


def test_absolute_paths_and_urls(images, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    content = pa.table(
        {
            "id": ["path", "file", "memory", "missing", "nothing"],
            "clean": [str(images / "clean0.npy")] * 5,
            "noisy": [
                str(images / "noisy0.npy"),
                f"file://{images}/noisy0.npy",
                "memory://pictures/noisy0.npy",
                "memory://pictures/nowhere.npy",
                "nothing://at/all.npy",
            ],
        }
    )
    fsspec.filesystem("memory").pipe_file("/pictures/noisy0.npy", (images / "noisy0.npy").read_bytes())
    pairs = ManifestPairs(write(other / "m.csv", content))
    loaded = [pairs.load(index, row) for index, row in enumerate(pairs.rows(0, 5).to_pylist())]
    assert [type(pair) for pair in loaded] == [LoadedPair] * 3 + [FailedPair] * 2
    for pair in loaded[1:3]:
        assert pair.noisy.equal(loaded[0].noisy)
    assert "memory://pictures/nowhere.npy cannot be read as an image" in loaded[3].reason
    assert "nothing" in loaded[4].reason


def test_a_manifest_and_its_images_come_over_http(images):
    pytest.importorskip("aiohttp", reason="fsspec needs it for http")
    write(images / "m.parquet", table(6))
    handler = functools.partial(QuietHandler, directory=str(images))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/m.parquet"
        try:
            assert evaluate(images, "--manifest", url) == 0
            assert evaluate(images, "--manifest", url.replace("m.parquet", "nowhere.csv")) == cli.BAD_USAGE
        finally:
            server.shutdown()
    summary = json.loads((images / "out" / "summary.json").read_text())
    assert (summary["pairs"], summary["evaluated"]) == (6, 6)
    assert summary["throughput"]["read_seconds"] >= 0


def test_a_protocol_without_its_package_is_a_mistake_that_names_the_extra(tmp_path, capsys):
    try:
        import s3fs  # noqa: F401
    except ImportError:
        assert evaluate(tmp_path, "--manifest", "s3://bucket/m.csv") == cli.BAD_USAGE
        assert "[remote]" in capsys.readouterr().err
    else:
        pytest.skip("s3fs is installed")


def test_a_cell_of_several_lines_keeps_its_place_wherever_blocks_of_the_file_end(tmp_path):
    count = 60_000
    content = table(count, note=[f'line one of {i}\nline, "two"' for i in range(count)])
    pairs = ManifestPairs(write(tmp_path / "m.csv", content))
    assert pairs.check()[0] == count
    wanted = content.select(["id", "noisy", "note", "clean"])
    for start in (0, 15_850, 31_000, count - 7):
        assert pairs.rows(start, start + 7).to_pylist() == wanted.slice(start, 7).to_pylist()


@pytest.mark.parametrize("mark", [";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_spreadsheets_write_csv_in_their_own_way(images, mark, encoding):
    rows = [["id ", " clean", "noisy"], ["a", "clean0.npy ", " noisy0.npy"]]
    (images / "m.csv").write_bytes("\r\n".join(mark.join(row) for row in rows).encode(encoding))
    pairs = ManifestPairs(str(images / "m.csv"))
    assert pairs.check()[0] == 1
    assert isinstance(pairs.load(0, pairs.rows(0, 1).to_pylist()[0]), LoadedPair)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "id,clean,noisy\na,x,y\nb,caf\xe9.png,y\n".encode("latin-1"),
            r"row 2: clean holds b'caf\\xe9.png', which is no UTF-8",
        ),
        ("id,clean,noisy,\xe9\na,x,y,z\n".encode("latin-1"), "the header holds .* which is no UTF-8"),
        ("id,clean,noisy\na,x,y\n".encode("utf-16"), "no text in UTF-8 .perhaps UTF-16"),
    ],
)
def test_text_in_another_encoding_is_named_with_its_place(tmp_path, content, message):
    (tmp_path / "m.csv").write_bytes(content)
    with pytest.raises(ManifestError, match=message):
        ManifestPairs(str(tmp_path / "m.csv")).check()


def test_text_in_parquet_that_is_no_utf8_is_an_error_of_ours(tmp_path):
    """Found by fuzzing: Arrow writes and reads such text, and fails only when Python asks for it."""
    content = table(2).set_column(0, "noisy", pa.array([b"a.npy", b"\xff.npy"]).view(pa.string()))
    with pytest.raises(ManifestError, match=r"m.parquet cannot be read: .*UTF8"):
        ManifestPairs(write(tmp_path / "m.parquet", content)).check()


CHAINS = ["reference://x.png::file:///refs.json", "simplecache::http://127.0.0.1/x.png", "Http://[::1]/a.png::file:///x"]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (CHAINS[0], "chains file systems by '::'"),
        (CHAINS[2], "chains file systems by '::'"),
        *(
            (f"{scheme}://x.png", f"of scheme {scheme.lower()}://; files are read from")
            for scheme in ("REFERENCE", "ftp", "zip")
        ),
        (CHAINS[1], "No such file or directory"),
        ("reference%3A//x.png", "No such file or directory"),
    ],
)
def test_no_other_file_system_is_reached_from_a_cell(images, cell, message):
    pairs = ManifestPairs(write(images / "m.csv", pa.table({"id": ["a"], "clean": ["clean0.npy"], "noisy": [cell]})))
    pair = pairs.load(0, pairs.rows(0, 1).to_pylist()[0])
    assert isinstance(pair, FailedPair)
    assert message in pair.reason


def test_a_path_may_hold_what_a_chain_is_written_with(images):
    (images / "a::b.npy").write_bytes((images / "noisy0.npy").read_bytes())
    pairs = ManifestPairs(write(images / "m.csv", pa.table({"id": ["a"], "clean": ["clean0.npy"], "noisy": ["a::b.npy"]})))
    assert isinstance(pairs.load(0, pairs.rows(0, 1).to_pylist()[0]), LoadedPair)


@pytest.mark.parametrize("location", ["reference://m.csv", "dir://m.csv::file:///", "file:///tmp/m.csv::x.csv"])
def test_no_other_file_system_is_reached_from_the_manifests_place(location):
    with pytest.raises(ValueError, match=r"must end in|scheme|chains"):
        ManifestPairs(location)


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_arguments):
        pass


@pytest.mark.parametrize("where", ["clean", "note"])
def test_a_small_file_that_repeats_a_long_text_is_refused_before_it_unfolds(tmp_path, where):
    """Twenty kilobytes of Parquet are here 8 GB of text."""
    count = 8192
    long = pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), ["x" * 2**20])
    content = table(count, note=["x"] * count)
    path = write(tmp_path / "m.parquet", content.set_column(content.column_names.index(where), where, long))
    assert (tmp_path / "m.parquet").stat().st_size < 10**6
    pairs = ManifestPairs(path)
    for read in (pairs.check, lambda: pairs.rows(0, 1)):
        with pytest.raises(ManifestError, match=r"m\.parquet .*its texts would unfold to 8,59\d,\d+,\d+ bytes"):
            read()


def test_a_small_file_of_endless_rows_is_refused_before_it_unfolds(tmp_path):
    cell = pa.DictionaryArray.from_arrays(pa.array(np.zeros(2**22, np.int32)), ["x"])
    path = write(tmp_path / "m.parquet", pa.table(dict.fromkeys(("id", "clean", "noisy"), cell)))
    with pytest.raises(ManifestError, match=r"m\.parquet cannot be read: its .* would unfold .* \(4,194,304 rows\)"):
        ManifestPairs(path)


def test_categories_are_texts(tmp_path):
    path = write(tmp_path / "m.parquet", table(3, group=pa.array(["a", "b", "a"]).dictionary_encode()))
    pairs = ManifestPairs(path)
    assert pairs.check()[0] == 3
    assert pairs.rows(1, 3)["group"].to_pylist() == ["b", "a"]
    assert pairs.rows(1, 3)["group"].type == pa.string()
