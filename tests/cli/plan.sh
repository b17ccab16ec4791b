#!/usr/bin/env bash
# plan: bytes of results and checkpoints are those of a run, memory is that of a run within a tenth, and times on any number of
# ranks follow from the time of a cell.
. "$(dirname "$0")/lib.sh"
s=$program
number() { python3 -c 'import json, sys
v = json.load(open(sys.argv[1]))
for k in sys.argv[2].split("."): v = v[int(k) if k.isdigit() else k]
print(v)' "$1" "$2"; }
plan() { expect 0 -- "$s" plan "$@" --json && cp out.txt plan.json; }

# ---- bytes: two shapes and two models, with weights, snapshots and complex values
data='"dataset":{"_name_":"mqar","input_seq_length":32,"num_kv_pairs":4,"vocab_size":64,"num_train":64,"num_valid":16,"num_test":16}'
train='"total_steps":4,"batch_size":4,"lr":0.003,"ssm_lr":0.001,"warmup":1,"eval_every":2'
cat >s4.json <<END
{$data,"train":{$train},"model":{"layer":"s4","norm":"batch","prenorm":true,"input_dim":64,"output_dim":64,"pooling":"none",
 "num_layers":2,"hidden_dim":16,"state_dim":16}}
END
write_grid tiny 4
for set in "analysis.snapshots=2" "run.save_weights=true" "analysis.store=bins"; do
  for config in s4 tiny; do
    plan $config.json --rate 1 --set $set
    expect 0 -- "$s" run $config.json --out $config.h5 --quiet --set $set
    [ "$(stat -c %s $config.h5)" = "$(number plan.json file_bytes)" ] ||
      fail "$config, $set: $(stat -c %s $config.h5) bytes, planned $(number plan.json file_bytes)"
    rm -f $config.h5
  done
done
# Those of tests beside this one go away.
for f in $(find /dev/shm -name 'seqspectra-plan.*' -newer s4.json 2>/dev/null); do
  for _ in $(seq 100); do [ -e "$f" ] || break; sleep 0.1; done
  [ ! -e "$f" ] || fail "plan has left $f"
done

# ---- checkpoints
write_grid long 200000
plan long.json --rate 1
"$s" run long.json --out long.h5 --set run.checkpoint_minutes=0.005 >out.txt 2>err.txt &
pid=$!
for _ in $(seq 600); do [ -e long.h5.ckpt/cell-0.old ] && break; sleep 0.1; done
kill -TERM $pid
wait $pid
[ $? = 75 ] || fail "a run that was stopped"
for f in cell-0 cell-0.old; do
  [ "$(stat -c %s long.h5.ckpt/$f)" = "$(number plan.json rows.0.checkpoint_bytes)" ] ||
    fail "$f: $(stat -c %s long.h5.ckpt/$f) bytes, planned $(number plan.json rows.0.checkpoint_bytes)"
done
# The run has said what they took.
grep -qE '^checkpoints: [0-9]+ written, of [0-9.]+ .?B and in [0-9.e-]+ s on average, [0-9.e+-]+ % of the time$' out.txt || fail "checkpoints: $(cat out.txt)"

# ---- memory: growth over a very small cell, beside what is planned for it.  Shards coupled by BatchNorm: fewer than a batch of 16 has, uneven ones,
# fewer examples than the batch, larger evaluations.
if ! ldd "$s" | grep -q asan; then
  peak() { h5dump -d /cells/run_peak_bytes -y -w 1 "$1" | sed -n '/DATA {/,/}/p' | grep -oE '[0-9.]+e?\+?[0-9]*' | head -1; }
  sed 's/"_name_":"mqar","input_seq_length":32,"num_kv_pairs":4/"_name_":"lag_copy","input_seq_length":32/; s/"layer":"s4"/"layer":"lru"/' s4.json >lag.json
  expect 0 -- "$s" run lag.json --out small.h5 --quiet
  plan lag.json --rate 1 --ranks 1
  small=$(number plan.json memory_bytes_rank)
  large="--set model.hidden_dim=192 --set dataset.input_seq_length=512 --set analysis.batch_size=2 --set analysis.hankel_samples=1 --set analysis.memory_samples=1
    --set train.total_steps=1 --set train.eval_every=1 --set dataset.num_valid=4 --set dataset.num_test=4"
  for batch in "train.batch_size=3" "train.batch_size=20" "train.batch_size=16 --set dataset.num_train=5" "train.batch_size=3 --set train.eval_batch_size=16"; do
    plan lag.json --rate 1 --ranks 1 $large --set $batch
    rm -f large.h5
    expect 0 -- "$s" run lag.json --out large.h5 --quiet $large --set $batch
    python3 - "$(peak small.h5)" "$(peak large.h5)" "$small" "$(number plan.json memory_bytes_rank)" <<'END' || fail "memory with $batch"
import sys
small, large, planned_small, planned_large = map(float, sys.argv[1:])
grown, planned = large - small, planned_large - planned_small
print("grew by %.1f MB, planned %.1f MB" % (grown / 1e6, planned / 1e6))
# Where all pages are huge, how much of what is taken and not touched counts is the system's affair.
try:
    huge = "[always]" in open("/sys/kernel/mm/transparent_hugepage/enabled").read()
except OSError:
    huge = False
if huge:
    print("not tested here: growth by less than was planned (all pages are huge)")
sys.exit(not (grown - planned <= 0.1 * planned + 2e6 and (huge or planned - grown <= 0.1 * planned + 2e6)))
END
  done
fi

# ---- ranks: six equal cells, at 1 GFLOP/s and a start of two seconds
sed 's/"base":\["softmax.json","linear.json"\]/"base":["softmax.json"]/; s/\[1,2,3\]/[1,2,3,4,5,6]/' long.json >equal.json
plan equal.json --rate 1 --team 1 --ranks 1,2,3,4,6,7,10000 --time-limit 1e8
python3 - plan.json <<'END' || fail "equal cells"
import json, sys
p = json.load(open(sys.argv[1]))
cell, start = p["rows"][0]["cell_s"], p["start_s"]
for f in p["forecasts"]:
    want = -(-6 // f["ranks"]) * cell + start
    assert abs(f["wall_s"] - want) < 1e-9 * want, (f, want)
    assert f["starts"] == 1 and f["team"] == 1 and f["idle_ranks"] == max(0, f["ranks"] - 6)
assert p["useful_ranks"] == 6 and p["critical_path_s"] == cell
END
# Teams: 16 shards, so 96 ranks are the last of use, and 10,000 are no faster.
plan equal.json --rate 0.001 --ranks 6,95,96,10000
python3 - plan.json <<'END' || fail "teams"
import json, sys
p = json.load(open(sys.argv[1]))
f = p["forecasts"]
assert [x["team"] for x in f] == [1, 8, 16, 16], f
assert f[3]["wall_s"] == f[2]["wall_s"] < f[1]["wall_s"] < f[0]["wall_s"] and f[3]["idle_ranks"] == 9904
assert p["useful_ranks"] == 96 and f[2]["limited_by"] == "longest cell"
END
# Where teams help, the work is the limit; the longest cell is one only from the last useful rank on.  What is charged is not the work.
plan equal.json --rate 0.001 --ranks 12,24,48,96,200
python3 - plan.json <<'END' || fail "limits"
import json, sys
p = json.load(open(sys.argv[1]))
f = p["forecasts"]
assert [x["limited_by"] for x in f] == 3 * ["work"] + 2 * ["longest cell"], f
for x in f:
    charged = x["ranks"] * x["wall_s"] / 3600
    assert abs(x["core_hours_charged"] - charged) < 1e-9 * charged and x["core_hours_charged"] >= p["core_hours"], x
END
grep -q 'warning: 200 ranks: more than 96 are of no use, and are charged; 104 would be idle' err.txt || fail "idle: $(cat err.txt)"
plan equal.json --rate 0.001 --ranks 96
grep -q 'of no use' err.txt && fail "96 ranks are not too many: $(cat err.txt)"
# --rate is that of a core: 16 shards are four for each of four threads or of four ranks, two for each of three.
plan equal.json --rate 1 --ranks 24 --team 4 && cp plan.json ranks.json
python3 - "$(number ranks.json critical_path_team)" "$(number ranks.json critical_path_team_s)" "$(number ranks.json wall_s)" <<'END' || fail "--team is not that of the critical path"
import sys
team, cell, wall = map(float, sys.argv[1:])
sys.exit(not (team == 4 and cell < wall < cell + 10))
END
for threads in 1:1 2:2 3:2 4:4 8:8 16:16; do
  plan equal.json --rate 1 --ranks 6 --team 1 --threads ${threads%:*}
  python3 - plan.json ranks.json ${threads#*:} <<'END' || fail "--rate with ${threads%:*} threads"
import json, sys
p, q = (json.load(open(f)) for f in sys.argv[1:3])
want = q["critical_path_s"] / float(sys.argv[3])
assert abs(p["critical_path_s"] - want) < 0.001 * want, (p["critical_path_s"], want)
END
done
# A job is told two minutes before its end; shorter ones have no line, and more starts than a job has are said.
plan equal.json --rate 1 --team 1 --ranks 6 --time-limit 300
python3 - plan.json <<'END' || fail "the time that a job has"
import json, math, sys
p = json.load(open(sys.argv[1]))
cell, useful = p["critical_path_s"], 300 - 120 - p["start_s"]
assert p["starts"] in (math.ceil(cell / useful), math.ceil(cell / (useful - 2 * p["checkpoint_s"]))), (p["starts"], cell / useful)
assert "--time=00:05:00" in p["sbatch"]
END
expect 0 -- "$s" plan equal.json --rate 0.1 --team 1 --ranks 6 --time-limit 240
grep -q 'note: --time-limit=240: of no use for a job, which is told to stop 120 s before its end' err.txt || fail "a short job: $(cat err.txt)"
grep -qE 'note: [0-9]+ starts: a job is put back 200 times' err.txt || fail "many starts: $(cat err.txt)"
grep -q '^sbatch' out.txt && fail "a job of 240 s"
grep -qE '; [0-9]+ starts of 4 min; ' out.txt || fail "minutes: $(cat out.txt)"
# A time limit: a start has a tenth less, at most 30 s, and its own beginning; what was begun goes on.
plan equal.json --rate 1 --team 1 --ranks 6 --time-limit 100
python3 - plan.json <<'END' || fail "time limit"
import json, math, sys
p = json.load(open(sys.argv[1]))
cell, useful = p["critical_path_s"], 100 - 10 - p["start_s"]
assert cell > 3 * useful
assert p["starts"] in (math.ceil(cell / useful), math.ceil(cell / (useful - 2 * p["checkpoint_s"]))), (p["starts"], cell / useful)
END
expect 2 'plan: --time-limit=2: .* no cell gets on' -- "$s" plan equal.json --rate 1 --time-limit 2
expect 2 'plan: --ranks=4,x: expected an integer' -- "$s" plan equal.json --ranks 4,x
for ranks in 1, 1,,2 ,1 ,; do
  expect 2 "plan: --ranks=$ranks: expected an integer" -- "$s" plan equal.json --ranks $ranks
done
expect 2 'plan: --node=48: expected CORES:GB' -- "$s" plan equal.json --node 48

# ---- what is not timed is said; threads that this machine has no cores for
expect 0 -- "$s" plan equal.json --measure 0 --ranks 1
grep -qE '^Times: .*timed here \(\*: not timed, .*--measure' out.txt || fail "--measure 0: $(cat out.txt)"
expect 0 -- "$s" plan equal.json --rate 1 --threads 1024
grep -q 'warning: plan: a node like this machine: a rank has 1024 threads, this node .*; no line for sbatch: --node CORES:GB' err.txt || fail "1024 threads: $(cat err.txt)"

# ---- a time limit as Slurm writes it
for limit in "93784 1-02:03:04" "7384 2:03:04" "3570 59:30" "93600 1-2" "93780 1-2:03"; do
  expect 0 -- "$s" plan equal.json --rate 0.1 --ranks 1 --time-limit ${limit% *}
  cp out.txt seconds.txt
  expect 0 -- "$s" plan equal.json --rate 0.1 --ranks 1 --time-limit ${limit#* }
  cmp -s seconds.txt out.txt || fail "--time-limit $limit: $(diff seconds.txt out.txt)"
done

# ---- the job
expect 0 -- "$s" plan equal.json --rate 1 --ranks 6 --node 4:192 --time-limit 7200
grep -qE '^sbatch --nodes=2 --ntasks=6 --ntasks-per-node=4 --cpus-per-task=1 --mem-per-cpu=[0-9]+M --time=0[012]:[0-9]{2}:00 --job-name=long .*' out.txt ||
  fail "sbatch: $(cat out.txt)"
# The line as a shell takes it, from another folder, with a long path and characters of the shell: the words that the job's body gets.
long="$dir/it's a \$HOME/$(printf 'x%.0s' $(seq 200))"
mkdir -p "$long" bin home/jobs
cp equal.json softmax.json "$long"
cat >bin/sbatch <<'END'
#!/bin/sh
for w; do case $w in --wrap=*) exec sh -c "${w#--wrap=}" ;; esac; done
END
cat >home/jobs/slurm-run.sh <<'END'
#!/bin/sh
printf '%s\n' "$OPENBLAS_CORETYPE" "$@"
END
chmod +x bin/sbatch home/jobs/slurm-run.sh
export SEQSPECTRA_HOME=$dir/home
(cd "$long" && "$s" plan equal.json --rate 1 --ranks 6 --node 4:192 --set run.team=1 --threads 2 2>/dev/null) | grep '^sbatch' >line.sh
(cd / && env -u OPENBLAS_CORETYPE PATH="$dir/bin:$PATH" bash "$dir/line.sh") >words.txt
printf '%s\n' Haswell "$long/equal.json" long.h5 --set run.team=1 --threads 2 | diff - words.txt || fail "the job gets other words: $(cat line.sh)"
# A script of the name of another file does not run this one; that of the same tree does, from there and from elsewhere.
mkdir -p tree/configs/grids tree/jobs jobs
cp equal.json softmax.json tree/configs/grids
# shellcheck disable=SC2016
printf 'run=${SEQSPECTRA_HOME:-.}/jobs/slurm-run.sh\nexec "$run" configs/grids/equal.json "${RESULTS:-equal.h5}"\n' | tee tree/jobs/equal.sbatch >jobs/equal.sbatch
line() { (cd "$1" && "$s" plan "$2" --rate 1 --ranks 6 2>/dev/null) | grep 'sbatch '; }
line . equal.json | grep -q -- '--wrap=' || fail "a script that runs another file: $(line . equal.json)"
line tree configs/grids/equal.json | grep -qE '^sbatch .* jobs/equal.sbatch$' || fail "from the tree: $(line tree configs/grids/equal.json)"
line . tree/configs/grids/equal.json | grep -qE '^SEQSPECTRA_HOME=[^ ]+/tree sbatch .*/tree/jobs/equal.sbatch$' || fail "from elsewhere: $(line . tree/configs/grids/equal.json)"
mkdir -p configs/grids && cp equal.json softmax.json configs/grids
line . tree/configs/grids/equal.json | grep -q -- '--wrap=' || fail "the script would run the other file: $(line . tree/configs/grids/equal.json)"
sed -i s/equal.json/other.json/ tree/jobs/equal.sbatch
line tree configs/grids/equal.json | grep -q -- '--wrap=' || fail "the script names another file"
unset SEQSPECTRA_HOME
for node in 4:1e-9 4:0.0001 4:0.036; do
  expect 2 "plan: --node=$node: no rank fits: the largest cell needs [0-9.]+ MB of memory, the program 35.0 MB" -- \
    "$s" plan equal.json --rate 1 --ranks 6 --node $node
done
expect 2 'plan: --node=4:192: a rank has 8 threads, this node 4 cores' -- "$s" plan equal.json --rate 1 --threads 8 --node 4:192
finish
