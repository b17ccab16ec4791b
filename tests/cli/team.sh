#!/usr/bin/env bash
# Teams: whatever ranks, threads and teams train a cell, its numbers are the same bit for bit; also when the team changes on the
# way.  A transformer with dropout, Mamba-2, S5 with BatchNorm and S4: vectors short, and long in several stretches, sums coupled
# and not, derived quantities, batches with 16 shards and with 13, 7 and 6.
. "$(dirname "$0")/lib.sh"
s=$program

data='"dataset":{"_name_":"mqar","input_seq_length":16,"num_kv_pairs":2,"vocab_size":32,"num_train":205,"num_valid":20,"num_test":20}'
train='"total_steps":20,"eval_batch_size":7,"lr":0.003,"wd":0.1,"warmup":5,"eval_every":7'
ssm='"input_dim":32,"output_dim":32,"pooling":"none","num_layers":2,"prenorm":true'
cell() { echo "{\"label\":\"$1\",\"seed\":3,$data,\"train\":{$train,$3},\"model\":{$2},\"run\":{\"save_weights\":true},
  \"analysis\":{\"batch_size\":2,\"snapshots\":1}}" >"$1.json"; }
cell softmax '"layer":"transformer","attention_fn":"sm-attention","dim_conv":4,"num_layers":4,"hidden_dim":64,"state_dim":64,"num_heads":2,"vocab_size":32,"output_dim":32,"mixer":"none","max_pos_embed":32,"dropout":0.1' '"batch_size":16'
cell mamba '"layer":"mamba","version":"mamba2","num_layers":2,"hidden_dim":16,"state_dim":16,"num_heads":2,"conv_dim":4,"expansion":1,"glu":true,"prenorm":true,"pooling":"none","token_embedding":true,"vocab_size":32,"output_dim":32,"dropout":0.1' '"batch_size":16'
cell s5 "\"layer\":\"s5\",\"hidden_dim\":16,\"state_dim\":16,\"norm\":\"batch\",\"dropout\":0.1,$ssm" '"ssm_lr":0.001,"batch_size":16'
cell six "\"layer\":\"s4\",\"hidden_dim\":112,\"state_dim\":16,\"norm\":\"batch\",$ssm" '"ssm_lr":0.001,"batch_size":6'
echo '{"name":"four","base":["softmax.json","mamba.json","s5.json","six.json"]}' >four.json

expect 0 -- "$s" run four.json --out alone.h5 --quiet
# One that differs, so that a comparison that sees nothing is seen.
expect 0 -- "$s" run four.json --out other.h5 --quiet --set seed=4
h5diff --exclude-path /cell alone.h5 other.h5 >/dev/null 2>&1 && fail "files of two seeds do not differ"

# RANKS,THREADS,TEAM: 2, 4 and 8 workers; 3 ranks leave one over.  SQ_TEAM_ALL: more of them.
mixes="1,2,1 3,1,2 2,2,2 4,1,4 8,1,8"
[ -n "${SQ_TEAM_ALL:-}" ] && mixes="$mixes 1,4,1 4,1,2 2,4,2 5,2,4 1,8,1 4,2,1"
for mix in $mixes; do
  set -- ${mix//,/ }
  rm -f mix.h5
  expect 0 -- ranks $1 "$s" run four.json --out mix.h5 --quiet --threads $2 --team $3
  same_numbers alone.h5 mix.h5
done
# The sums of a gradient made in the background or not, the same numbers; the configuration in the file is another one.
for way in alone:false mix:true; do
  rm -f ${way%:*}-way.h5
  expect 0 -- ranks 2 "$s" run six.json --out ${way%:*}-way.h5 --quiet --set run.overlap=${way#*:}
done
h5diff alone-way.h5 mix-way.h5 /weights >diff.txt 2>&1 || fail "run.overlap changes numbers: $(head -5 diff.txt)"
# 16 workers on one cell; the team is chosen
for name in softmax s5; do
  expect 0 -- "$s" run $name.json --out one-$name.h5 --quiet
  [ $name = s5 ] && [ -z "${SQ_TEAM_ALL:-}" ] && mixes="4,4" || mixes="16,1 4,4"
  for mix in $mixes; do
    set -- ${mix//,/ }
    rm -f mix.h5
    expect 0 -- ranks $1 "$s" run $name.json --out mix.h5 --threads $2
    [ $1 = 1 ] || grep -q "^1 team of $1 ranks$" out.txt || fail "$mix: not one team: $(cat out.txt)"
    same_numbers one-$name.h5 mix.h5
  done
done

# Fewer sequences than workers: threads inside a shard, in the chunks of Mamba-2 and in blocks and states of LRU.  Derived quantities
# that are made once in a team: LRU's of a layer by one member, S4's seven slices (the last of 14 channels) by several, of 8 members by seven.
data=${data/'"input_seq_length":16'/'"input_seq_length":300'}
train='"total_steps":3,"eval_every":3,"lr":0.003'
cell mamba2 '"layer":"mamba","version":"mamba2","num_layers":1,"hidden_dim":32,"state_dim":32,"num_heads":2,"conv_dim":4,"expansion":2,"glu":true,"prenorm":true,"pooling":"none","token_embedding":true,"vocab_size":32,"output_dim":32' '"batch_size":2'
cell lru '"layer":"lru","norm":"layer","input_dim":32,"output_dim":32,"pooling":"none","num_layers":1,"hidden_dim":128,"state_dim":96,"prenorm":true' '"ssm_lr":0.001,"batch_size":2'
cell s4 '"layer":"s4","norm":"batch","input_dim":32,"output_dim":32,"pooling":"none","num_layers":2,"hidden_dim":110,"state_dim":16,"prenorm":true' '"ssm_lr":0.001,"batch_size":4'
echo '{"name":"few","base":["mamba2.json","lru.json","s4.json"],"analysis":{"protocols":[]}}' >few.json
expect 0 -- "$s" run few.json --out few.h5 --quiet
mixes="1,8 2,4 4,1 8,1"
[ -n "${SQ_TEAM_ALL:-}" ] && mixes="$mixes 8,2 16,1"
for mix in $mixes; do
  rm -f mix.h5
  expect 0 -- ranks ${mix%,*} "$s" run few.json --out mix.h5 --quiet --threads ${mix#*,} --team ${mix%,*}
  same_numbers few.h5 mix.h5
done

# Stopped by a signal to any rank of a team, gone on with another team.
long="--set train.total_steps=4000 --set train.eval_every=2000 --set run.checkpoint_minutes=0.005"
expect 0 -- "$s" run s5.json --out whole.h5 --quiet $long
# interrupt RANKS FILE SIGNAL WHO: starts a run and, after its first checkpoint, sends the signal to its first (head) or last (tail)
# process; $got: the exit status.  On a fast or a busy machine the run may be over before the signal comes: then again.
interrupt() {
  local pid victim sent
  for _ in 1 2 3 4 5; do
    rm -rf "$2" "$2.ckpt"
    ranks $1 "$s" run s5.json --out "$2" --quiet --team 2 $long >/dev/null 2>err.txt &
    pid=$!
    for _ in $(seq 3000); do
      victim=$(rank_pids s5.json "$2" | sort -n)
      [ "$(wc -w <<<"$victim")" = $1 ] && break
      kill -0 $pid 2>/dev/null || break
      sleep 0.02
    done
    until_or_end $pid test -s "$2.ckpt/cell-0"
    kill -$3 $($4 -1 <<<"$victim") 2>/dev/null
    sent=$?
    ends_within 60 $pid || fail "$2: the rest of a team hangs 60 s after SIG$3"
    wait $pid
    got=$?
    [ $sent = 0 ] && [ $got != 0 ] && return
  done
  fail "$2: no signal in five runs came before the end"
}
i=0
for who in head tail; do # the first rank of the team, and the one that is left over
  i=$((i + 1))
  interrupt 3 stop$i.h5 USR1 $who
  [ $got = 75 ] || fail "SIGUSR1 to a rank of a team: exit status $got, expected 75: $(cat err.txt)"
  [ -s stop$i.h5.ckpt/cell-0 ] || fail "a stopped team has left no checkpoint"
  expect 0 -- ranks $i "$s" run s5.json --out stop$i.h5 --quiet --resume --threads $((3 - i)) $long
  same_numbers whole.h5 stop$i.h5
done

# A member that dies takes the others with it.
interrupt 2 killed.h5 KILL tail
expect 0 -- "$s" run s5.json --out killed.h5 --quiet --resume $long
same_numbers whole.h5 killed.h5

# No room for a checkpoint, to which each member gives its part: a line for each, and the cell goes on.
often="--set run.checkpoint_minutes=0.0001"
expect 0 -- "$s" run softmax.json --out room.h5 --quiet $often
touch full
for n in 2 4; do
  SQ_PRELOAD_FULL=$PWD/full SQ_PRELOAD_DIR=$PWD/full$n.h5.ckpt expect 0 -- preloaded_ranks $n "$s" run softmax.json \
    --out full$n.h5 --quiet --team $n $often
  grep -q '^seqspectra: rank 0: cell 0 .*: full'$n'.h5.ckpt/cell-0.tmp: the checkpoint cannot be written: No space left on device$' err.txt ||
    fail "no room for a checkpoint of $n ranks: $(head -3 err.txt)"
  same_numbers room.h5 full$n.h5
done

# More threads than cores: a warning.
cores=$(getconf _NPROCESSORS_ONLN)
# shellcheck source=../../jobs/lib.sh
if [ "$(. "$SQ_SOURCE/jobs/lib.sh"; usable_cores)" = "$cores" ]; then
  export OMPI_MCA_hwloc_base_binding_policy=none
  expect 0 -- ranks 2 "$s" run softmax.json --out crowd.h5 --threads "$cores"
  [ "$cores" = 1 ] || grep -Eq "^warning: (2 ranks of $cores threads share the $cores cores of this machine|this program was built without OpenMP)" err.txt ||
    fail "threads that share cores: $(cat err.txt)"
else
  echo "not tested here: threads that share cores (not all of $cores may be used)"
fi

# What cannot be had is refused; a number need not be quoted.
expect 2 'teams of 4 ranks: there are only 2' -- ranks 2 "$s" run s5.json --out x.h5 --team 4
expect 2 'run: --team=3: expected 1, 2, 4, 8 or 16' -- "$s" run s5.json --out x.h5 --team 3
expect 2 'run.team: is 3, expected auto.1.2.4.8.16' -- "$s" run s5.json --out x.h5 --set run.team=3
expect 2 'teams of 2 ranks: there is only 1' -- "$s" run s5.json --out x.h5 --set run.team=2
[ -e x.h5 ] && fail "a refused run has left a file"

# plan: 16 ranks for one cell are a team, 17 leave one over, and more are of no use; 6 sequences can use 8.
expect 0 -- "$s" plan s5.json --rate 0.001 --ranks 17
grep -q 'on 17 ranks in teams of 16 .*; 1 of them idle; more than 16 ranks are of no use' out.txt || fail "plan: $(tail -4 out.txt)"
expect 0 -- "$s" plan six.json --rate 0.001 --ranks 8 --json
grep -q '"useful_ranks":[[:space:]]*8' out.txt && grep -q '"team":[[:space:]]*8' out.txt || fail "plan --json: $(cat out.txt)"
expect 0 -- "$s" plan s5.json --ranks 4 --team 2 --threads 2
grep -q 'on 4 ranks of 2 threads in teams of 2 .*; 2 of them idle' out.txt || fail "plan --team: $(tail -4 out.txt)"
finish
