"""Parts of a build, as they are kept between its steps."""

import hashlib

import pytest

from davinci.data.document_files import read_documents, write_documents
from davinci.data.documents import Document
from davinci.errors import UserError


@pytest.fixture
def part(tmp_path):
    path = tmp_path / "part.parquet"
    texts = [hashlib.sha512(b"%d" % one).hexdigest() for one in range(500)]  # most of the file: little is left to pack
    documents = [Document(str(one), str(one), text) for one, text in enumerate(texts)]
    write_documents(path, documents)
    assert list(read_documents(path)) == documents
    return path


@pytest.mark.parametrize("place", [0.05, 0.3, 0.6])
def test_a_bit_that_flips_is_noticed_and_the_part_is_made_again(part, place):
    content = bytearray(part.read_bytes())
    content[int(place * len(content))] ^= 4
    part.write_bytes(content)
    with pytest.raises(UserError, match=r"part.parquet: damaged \(.*\); removed, the same command makes it again"):
        list(read_documents(part))
    assert not part.exists()


def test_a_part_cut_short_is_noticed(part):
    part.write_bytes(part.read_bytes()[:-100])
    with pytest.raises(UserError, match="damaged"):
        list(read_documents(part))
    assert not part.exists()
