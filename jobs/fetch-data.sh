#!/usr/bin/env bash
# jobs/fetch-data.sh [--out DIR] [--mirror DIR|URL] [--checksums FILE] [--force] [--keep] TASK...
#
# Fetches data sets to DIR (default: $SEQSPECTRA_DATA, else ./data): cifar, imdb, wikitext, gpt2, mnist, aan, pathfinder.  Each file comes from
# the data set's own home, or from a mirror that has it under the same name (file:///..., a folder, or http), and must have the
# published checksum; --checksums names a file of "SHA256  NAME" lines to use instead, for mirrors with other contents.  A
# download that was cut short is resumed.  A data set that is there already is left alone, unless --force; --keep keeps the
# archives (DIR/.download).  ListOps is made: seqspectra data make listops.  aan and pathfinder are parts of the one archive of Long
# Range Arena (lra_release.gz, about 8 GB), for which no checksum is published: give one with --checksums.
set -eu
cd_from=$PWD
. "$(dirname "$0")/lib.sh"

out=${SEQSPECTRA_DATA:-./data} mirror= checksums= force= keep= tasks=
while [ $# -gt 0 ]; do
  case $1 in
  --out | --mirror | --checksums)
    [ $# -ge 2 ] || die "$1 needs a value" 2
    case $1 in --out) out=$2 ;; --mirror) mirror=$2 ;; --checksums) checksums=$2 ;; esac
    shift
    ;;
  --force) force=1 ;;
  --keep) keep=1 ;;
  -h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
  cifar | imdb | wikitext | gpt2 | mnist | aan | pathfinder) tasks="$tasks $1" ;;
  listops) die "listops is made, not fetched: seqspectra data make listops --out $out/listops" 2 ;;
  *) die "unknown task or option $1: expected cifar, imdb, wikitext, gpt2, mnist, aan or pathfinder (see --help)" 2 ;;
  esac
  shift
done
[ -n "$tasks" ] || die "no task: expected cifar, imdb, wikitext, gpt2, mnist, aan or pathfinder (see --help)" 2
[ -z "$checksums" ] || [ -r "$checksums" ] || die "$checksums: cannot be read" 3
case $mirror in
'' | *://*) ;;
*) [ -d "$mirror" ] || die "--mirror $mirror: no such folder" 3; mirror=file://$(cd "$mirror" && pwd) ;;
esac
mkdir -p "$out" || die "$out: cannot be made" 4
out=$(cd "$cd_from" && cd "$out" && pwd)
download=$out/.download
mkdir -p "$download" || die "$download: cannot be made" 4

checksum() { # ALGORITHM FILE
  case $1 in
  sha256) if command -v sha256sum >/dev/null; then sha256sum "$2"; else shasum -a 256 "$2"; fi ;;
  md5) if command -v md5sum >/dev/null; then md5sum "$2"; else md5 -r "$2"; fi ;;
  esac | cut -d' ' -f1
}

is_right() { # ALGORITHM:SUM FILE
  [ -f "$2" ] && [ "$(checksum "${1%%:*}" "$2")" = "${1#*:}" ]
}

transfer() { # URL FILE: goes on where FILE ends
  case $1 in
  file://*)
    [ -f "${1#file://}" ] || return 1
    local have=0
    [ ! -f "$2" ] || have=$(wc -c <"$2")
    tail -c +$((have + 1)) "${1#file://}" >>"$2"
    ;;
  *)
    if command -v curl >/dev/null; then
      curl -fL --retry 3 --connect-timeout 30 -C - -o "$2" "$1"
    elif command -v wget >/dev/null; then
      wget -c -t 3 -T 30 -O "$2" "$1"
    else
      die "neither curl nor wget is installed" 3
    fi
    ;;
  esac
}

# get NAME ALGORITHM:SUM URL...: $download/NAME with that checksum.
get() {
  local name=$1 sum=$2 file=$download/$1 part=$download/$1.part url got
  shift 2
  if [ -n "$checksums" ]; then
    sum=$(awk -v n="$name" '$2 == n || $2 == "*" n {print $1; exit}' "$checksums")
    [ -n "$sum" ] || die "$checksums: no line for $name" 3
    sum=sha256:$sum
  fi
  if is_right "$sum" "$file"; then return; fi
  [ -z "$mirror" ] || set -- "$mirror/$name"
  for url in "$@"; do
    say "$url"
    is_right "$sum" "$part" || transfer "$url" "$part" || { say "cannot be fetched: $url"; continue; }
    if ! is_right "$sum" "$part"; then # what was there to resume may have been of something else: once more, from the start
      rm -f "$part"
      transfer "$url" "$part" || { say "cannot be fetched: $url"; continue; }
    fi
    if is_right "$sum" "$part"; then
      mv "$part" "$file"
      return
    fi
    got=$(checksum "${sum%%:*}" "$part")
    rm -f "$part"
    say "$url: ${sum%%:*} $got, expected ${sum#*:}"
  done
  die "$name could not be had with checksum $sum; with the file at hand use --mirror DIR" 3
}

# into FOLDER COMMAND...: what COMMAND puts into an empty folder (its argument) becomes DIR/FOLDER, all or nothing.
into() {
  local folder=$1 temp=$download/unpack.$$
  shift
  rm -rf "$temp"
  mkdir "$temp" || die "$temp: cannot be made" 4
  "$@" "$temp" || { rm -rf "$temp"; die "$folder: cannot be unpacked (disk full?)" 4; }
  local from=$temp
  [ ! -d "$temp/$folder" ] || from=$temp/$folder
  rm -rf "${out:?}/$folder"
  mv "$from" "$out/$folder"
  rm -rf "$temp"
  say "$out/$folder"
}

there() { # FOLDER FILE: the data set is there, and stays
  [ -z "$force" ] && [ -e "$out/$1/$2" ] && say "$out/$1 is there (--force fetches it again)"
}

unpack_tar() { tar -xzf "$download/$1" -C "$2"; }
unpack_wikitext() {
  if command -v unzip >/dev/null; then
    unzip -q "$download/wikitext-103-raw-v1.zip" -d "$1" || return
  else
    "$(find_python zipfile)" -m zipfile -e "$download/wikitext-103-raw-v1.zip" "$1" || return
  fi
  mv "$1/wikitext-103-raw" "$1/wikitext"
}
copy_gpt2() { cp "$download/encoder.json" "$download/vocab.bpe" "$1"; }
mnist_files="train-images-idx3-ubyte train-labels-idx1-ubyte t10k-images-idx3-ubyte t10k-labels-idx1-ubyte"
unpack_mnist() {
  local f
  for f in $mnist_files; do gzip -dc "$download/$f.gz" >"$1/$f" || return; done
}

# unpack_lra PART TEMP NAME: the folder PART (tsv_data, pathfinder32) of the archive, wherever in it that is, as TEMP/NAME.
unpack_lra() {
  local found
  tar -xzf "$download/lra_release.gz" -C "$2" --wildcards "*/$1/*" || return
  found=$(find "$2" -type d -name "$1" | head -1)
  [ -n "$found" ] || return
  [ "$found" = "$2/$3" ] || mv "$found" "$2/$3"
}
unpack_lra_aan() { unpack_lra tsv_data "$1" aan; }
unpack_lra_pathfinder() { unpack_lra pathfinder32 "$1" pathfinder32; }
get_lra() {
  [ -n "$checksums" ] || die "$1: no checksum is published for lra_release.gz of Long Range Arena; give the one of your copy with --checksums FILE" 3
  get lra_release.gz sha256:none https://storage.googleapis.com/long-range-arena/lra_release.gz
}

fetch() {
  local s3=https://ossci-datasets.s3.amazonaws.com/mnist gpt=https://openaipublic.blob.core.windows.net/gpt-2/models/124M
  case $1 in
  cifar)
    there cifar-10-batches-bin test_batch.bin && return
    get cifar-10-binary.tar.gz md5:c32a1d4ab5d03f1284b67883e8d87530 https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz
    into cifar-10-batches-bin unpack_tar cifar-10-binary.tar.gz
    ;;
  imdb)
    there aclImdb train/pos && return
    get aclImdb_v1.tar.gz md5:7c2ac02c03563afcf9b574c7e56c153a https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz
    into aclImdb unpack_tar aclImdb_v1.tar.gz
    ;;
  wikitext)
    there wikitext wiki.train.raw && return
    get wikitext-103-raw-v1.zip sha256:91c00ae287f0d699e18605c84afc9e45c192bc6b7797ff8837e5474655a33794 \
      https://wikitext.smerity.com/wikitext-103-raw-v1.zip \
      https://s3.amazonaws.com/research.metamind.io/wikitext/wikitext-103-raw-v1.zip
    into wikitext unpack_wikitext
    ;;
  gpt2)
    there gpt2 vocab.bpe && return
    get encoder.json sha256:196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783 $gpt/encoder.json
    get vocab.bpe sha256:1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5 $gpt/vocab.bpe
    into gpt2 copy_gpt2
    ;;
  mnist)
    there mnist t10k-labels-idx1-ubyte && return
    get train-images-idx3-ubyte.gz md5:f68b3c2dcbeaaa9fbdd348bbdeb94873 $s3/train-images-idx3-ubyte.gz
    get train-labels-idx1-ubyte.gz md5:d53e105ee54ea40749a09fcbcd1e9432 $s3/train-labels-idx1-ubyte.gz
    get t10k-images-idx3-ubyte.gz md5:9fb629c4189551a2d022fa330f9573f3 $s3/t10k-images-idx3-ubyte.gz
    get t10k-labels-idx1-ubyte.gz md5:ec29112dd5afa0611ce80d1b7f02629c $s3/t10k-labels-idx1-ubyte.gz
    into mnist unpack_mnist
    ;;
  aan)
    there aan new_aan_pairs.test.tsv && return
    get_lra aan
    into aan unpack_lra_aan
    ;;
  pathfinder)
    there pathfinder32 curv_contour_length_14 && return
    get_lra pathfinder
    into pathfinder32 unpack_lra_pathfinder
    ;;
  esac
}

for t in $tasks; do fetch "$t"; done
[ -n "$keep" ] || rm -rf "$download"
