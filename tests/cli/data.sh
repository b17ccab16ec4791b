#!/usr/bin/env bash
# `data check` of the real subsets in ../shared/data gives the figures of their README.
. "$(dirname "$0")/lib.sh"
s=$program
data=$SQ_SOURCE/../shared/data
[ -d "$data" ] || skip "no $data"

check() { # TASK: out.txt has its figures, blanks squeezed
  expect 0 -- "$s" data check "$1" "$data"
  tr -s ' ' <out.txt >figures.txt
}
has() { # a line that begins so
  grep -q "^ *$1" figures.txt || fail "data check $task: no line \"$1\""
}
sums() { # FOLDER FILE...: the SHA-256 of SHA256SUMS is in the file's line
  local folder=$1 f sum
  shift
  for f; do
    sum=$(sed -n "s|^\([0-9a-f]*\) .*$folder/$f\$|\1|p" "$data/SHA256SUMS")
    [ -n "$sum" ] || fail "$folder/$f is not in SHA256SUMS"
    grep -q "^$f .*$sum" figures.txt || fail "data check $task: $f has another SHA-256 than $sum"
  done
}

task=cifar
check $task
for f in data_batch_1.bin data_batch_2.bin data_batch_3.bin data_batch_4.bin data_batch_5.bin test_batch.bin; do
  sums cifar-10-batches-bin $f
  has "$f 1536500 500 "
  has "$f 50 50 50 50 50 50 50 50 50 50$"
done
has 'train 250 250 250 250 250 250 250 250 250 250$'
has 'mean of red, green, blue in training: 124.9 122.6 113.1$'
has 'no input occurs twice$'

task=imdb
check $task
has 'train 2000 1000 1000 | 116 1314.8 7382 | 116 1315.1 7382 | 57 197$'
has 'test 1000 500 500 | 180 1310.5 6265 | 180 1310.8 6275 | 29 95$'
has 'vocabulary 95: 138 distinct characters in training, 92 seen at least 15 times'
has 'unknown in train: 226 of 2576015 characters$'
has 'unknown in test: 91 of 1285363 characters$'
has 'repeated 1 within train'
has 'checksum 0e823dd4e71af44975417f13ed60affba079349eaf885c68542f6be5eab622cc$'

task=wikitext
check $task
sums wikitext wiki.train.raw wiki.valid.raw wiki.test.raw wiki.train.tokens
has 'wiki.valid.raw 1146846 3760 213886 217646 0 249887 '
has 'wiki.test.raw 1290590 4358 241211 245569 0 286221 '
has 'wiki.train.raw 1002133 3279 186803 190082 0 219847 '
has 'wiki.train.tokens 2882983 9742 541783 551525 2754 635342 '
grep -q 'tokenizer with 50257 tokens' figures.txt || fail "the tokenizer has not 50257 tokens"

# The golden ids: 45,572 of them, each one right.
expect 0 -- "$s" data tokenize "$data/gpt2/wikitext-test-head.txt" --data "$data"
[ "$(wc -l <out.txt)" = 45572 ] || fail "data tokenize: $(wc -l <out.txt) ids, expected 45572"
od -An -v -t d4 -w4 "$data/gpt2/wikitext-test-head.ids.i32" | tr -d ' ' | cmp -s - out.txt || fail "data tokenize: ids differ"

task=listops
check $task
sums listops basic_train.tsv basic_val.tsv basic_test.tsv
has 'basic_train.tsv 1000 502 1031.7 1992 0 9 '
has 'basic_val.tsv 200 505 1054.4 1994 0 9 '
has 'basic_test.tsv 200 517 1028.9 1993 0 9 '
has 'basic_train.tsv 173 97 82 84 86 75 73 86 83 161 17.3%$'
has 'basic_val.tsv 39 16 22 10 23 14 7 11 16 42 '
has 'basic_test.tsv 26 25 9 19 20 13 15 8 26 39 '
n=3
for pair in 'X 146888' '7 74294' '5 74106' '3 74057' '6 74041' '4 73781' '1 73747' '8 73654' '2 73502' '0 73455' '9 73240' \
  '\[SM 37028' '\[MAX 36693' '\[MED 36647' '\[MIN 36520'; do
  has "$n $pair$"
  n=$((n + 1))
done
[ $n = 18 ] || fail "the vocabulary has not 18 tokens"
has 'every target equals its expression.s value$'
has 'no expression occurs twice$'
finish
