#!/usr/bin/env bash
# jobs/fetch-data.sh from a local mirror: what it fetches passes `data check`; checksums, resume, refusals.
. "$(dirname "$0")/lib.sh"
s=$program
fetch=$SQ_SOURCE/jobs/fetch-data.sh
unset SEQSPECTRA_DATA
for tool in tar gzip sha256sum python3; do command -v $tool >/dev/null || skip "no $tool"; done

fetched() { # STATUS PATTERN ARGUMENTS...: of the script
  local status=$1 pattern=$2
  shift 2
  "$fetch" "$@" >fetch.txt 2>&1
  local got=$?
  [ "$got" = "$status" ] || fail "fetch-data.sh $*: exit status $got, expected $status: $(tail -3 fetch.txt)"
  grep -Eq -- "$pattern" fetch.txt || fail "fetch-data.sh $*: no \"$pattern\" in: $(tail -3 fetch.txt)"
}

# ---- a mirror: small data sets in the archives' official layouts
python3 - <<'END' || exit 1
import gzip, json, os, random, struct, zipfile
random.seed(1)
os.makedirs("src/cifar-10-batches-bin")
for name in ["data_batch_%d.bin" % k for k in range(1, 6)] + ["test_batch.bin"]:
    with open("src/cifar-10-batches-bin/" + name, "wb") as f:
        for i in range(10):
            f.write(bytes([i]) + random.randbytes(3072))
for part in ["train", "test"]:
    for c in ["pos", "neg"]:
        os.makedirs("src/aclImdb/%s/%s" % (part, c))
        for i in range(3):
            with open("src/aclImdb/%s/%s/%d_%d.txt" % (part, c, i, 8 if c == "pos" else 2), "w") as f:
                f.write("some words %d " % i * 20)
os.makedirs("mirror")
with zipfile.ZipFile("mirror/wikitext-103-raw-v1.zip", "w") as z:
    for k in ["train", "valid", "test"]:
        z.writestr("wikitext-103-raw/wiki.%s.raw" % k, " = Title = \n \n some text here \n" * 300)
own = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
spelled = own + [256 + k for k in range(256 - len(own))]
vocab = {chr(c): k for k, c in enumerate(spelled)}
vocab["he"] = 256
vocab["<|endoftext|>"] = 257
json.dump(vocab, open("mirror/encoder.json", "w"))
open("mirror/vocab.bpe", "w").write("#version: 0.2\nh e\n")
for part in ["train", "t10k"]:
    with gzip.open("mirror/%s-images-idx3-ubyte.gz" % part, "wb") as f:
        f.write(struct.pack(">4I", 0x803, 20, 28, 28) + random.randbytes(20 * 784))
    with gzip.open("mirror/%s-labels-idx1-ubyte.gz" % part, "wb") as f:
        f.write(struct.pack(">2I", 0x801, 20) + bytes(k % 10 for k in range(20)))
END
python3 - <<'END' || exit 1
import os, struct, zlib
def png(k):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    rows = b"".join(bytes([0]) + bytes((k * 7 + x * y) % 256 for x in range(32)) for y in range(32))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">2I5B", 32, 32, 8, 0, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
lra = "src/lra_release/lra_release/"
os.makedirs(lra + "tsv_data")
for part in ["train", "eval", "test"]:
    open(lra + "tsv_data/new_aan_pairs.%s.tsv" % part, "w").write("0\tA\tB\tsome text\tother text\n1\tC\tD\tx\ty\n")
folder = lra + "pathfinder32/curv_contour_length_14/"
os.makedirs(folder + "metadata")
os.makedirs(folder + "imgs/0")
with open(folder + "metadata/0.npy", "w") as f:
    for k in range(12):
        open(folder + "imgs/0/sample_%d.png" % k, "wb").write(png(k))
        f.write("imgs/0 sample_%d.png %d %d 1.0\n" % (k, k, k % 2))
END
tar -C src -czf mirror/lra_release.gz lra_release
tar -C src -czf mirror/cifar-10-binary.tar.gz cifar-10-batches-bin
tar -C src -czf mirror/aclImdb_v1.tar.gz aclImdb
(cd mirror && sha256sum * >../sums.txt)

# ---- everything, from file:// and from a folder
fetched 0 'got/mnist' --out got --mirror "file://$dir/mirror" --checksums sums.txt cifar imdb wikitext gpt2 mnist
for t in cifar imdb wikitext mnist; do expect 0 -- "$s" data check $t got; done
[ -e got/.download ] && fail "archives stay without --keep"
cmp -s got/cifar-10-batches-bin/test_batch.bin src/cifar-10-batches-bin/test_batch.bin || fail "test_batch.bin is not what was packed"
diff -r src/aclImdb got/aclImdb >/dev/null || fail "aclImdb is not what was packed"
fetched 0 'is there' --out got --mirror mirror --checksums sums.txt cifar
echo damaged >got/gpt2/vocab.bpe
fetched 0 'got/gpt2' --out got --mirror mirror --checksums sums.txt --force --keep gpt2
cmp -s got/gpt2/vocab.bpe mirror/vocab.bpe || fail "--force does not fetch again"
[ -e got/.download/vocab.bpe ] || fail "--keep does not keep"

fetched 0 'got/pathfinder32' --out got --mirror mirror --checksums sums.txt aan pathfinder
expect 0 -- "$s" data check aan got
"$s" data check pathfinder got >out.txt 2>err.txt || grep -q 'without libpng' err.txt || fail "data check pathfinder: $(cat err.txt)"
fetched 3 'no checksum is published for lra_release.gz' --out bad --mirror mirror aan

# ---- resume: what is there is not read again
mkdir -p part/.download
head -c 5000 mirror/cifar-10-binary.tar.gz >part/.download/cifar-10-binary.tar.gz.part
cp -r mirror half
python3 -c 'import sys; f = open("half/cifar-10-binary.tar.gz", "r+b"); f.write(bytes(5000))' # its first 5000 bytes are lost
fetched 0 'part/cifar-10-batches-bin' --out part --mirror half --checksums sums.txt cifar
# ---- a part of something else is started anew
mkdir -p other/.download
head -c 5000 /dev/zero >other/.download/cifar-10-binary.tar.gz.part
fetched 0 'other/cifar-10-batches-bin' --out other --mirror mirror --checksums sums.txt cifar

# ---- refusals; nothing half-made
fetched 3 'md5 [0-9a-f]{32}, expected c32a1d4ab5d03f1284b67883e8d87530' --out bad --mirror mirror cifar
fetched 3 'cannot be fetched' --out bad --mirror "file://$dir/nowhere" imdb
fetched 3 'no such folder' --out bad --mirror nowhere imdb
fetched 3 'no line for aclImdb_v1.tar.gz' --out bad --mirror mirror --checksums /dev/null imdb
echo 'not an archive' >half/aclImdb_v1.tar.gz
(cd half && sha256sum aclImdb_v1.tar.gz >../half.txt)
fetched 4 'cannot be unpacked' --out bad --mirror half --checksums half.txt imdb
# Only archives, to go on with.
[ "$(ls -A bad)" = .download ] && ! ls -d bad/.download/unpack.* 2>/dev/null || fail "something half-made was left: $(ls -AR bad)"
fetched 2 'unknown task or option cifer' cifer
fetched 2 'no task' --out bad
fetched 2 'is made, not fetched' listops
finish
