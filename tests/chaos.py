#!/usr/bin/env python3
"""tests/chaos.py [--rounds N] [--seed S] [--kinds KIND...] [--teams] [--verbose]: runs that are hit at random moments, continued until they are done.

Each round is one results file.  Its run is started on 1 to 4 ranks and hit by one of: SIGKILL of a rank, of mpirun or of all;
SIGTERM or SIGUSR1 to a rank or to mpirun; SIGSTOP and SIGCONT; a time limit; a disk that is full for a while; and, between two
starts, a truncated or changed newest checkpoint.  --resume goes on with another number of ranks.  At the end the file must equal
that of an uninterrupted run, bit for bit; no cell that was done may be run again or change; nothing may hang.
--teams: all ranks of a start, 1, 2 or 4 with 1 or 2 threads, are one team, whose gradients are long enough to be summed in the
background, and hits come while a cell is trained; kill-member leaves the first rank alone.

Finds the program in $SQ_BIN, mpiexec in $SQ_MPIEXEC.  The last line counts rounds, hits, lost cells, differences.  Exit 77: skipped."""

import argparse
import collections
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

try:
    import h5py
except ImportError:
    for other in ("/usr/bin/python3", "/usr/local/bin/python3"):
        if not os.environ.get("SQ_PYTHON_TRIED") and os.path.exists(other) and \
                subprocess.run([other, "-c", "import h5py"], stderr=subprocess.DEVNULL).returncode == 0:
            os.environ["SQ_PYTHON_TRIED"] = "1"
            os.execv(other, [other] + sys.argv)
    print("skipped: no python3 with h5py")
    sys.exit(77)

HERE = os.path.dirname(os.path.abspath(__file__))
BIN = os.environ.get("SQ_BIN") or os.path.join(os.path.dirname(HERE), "build")
PROGRAM = os.path.realpath(os.path.join(BIN, os.environ.get("SQ_PROGRAM", "seqspectra")))
PRELOAD = os.path.join(BIN, "tests", "libsq_preload.so")
MPIEXEC = os.environ.get("SQ_MPIEXEC", "mpiexec")
DONE, STOPPED, USAGE, OUTPUT = 2, 75, 2, 4
HANG_S = 120  # nothing here takes a tenth of it, even on a loaded machine

MQAR = {"_name_": "mqar", "input_seq_length": 16, "num_kv_pairs": 4, "vocab_size": 32,
        "num_train": 256, "num_valid": 64, "num_test": 64}
TRAIN = {"total_steps": 90, "batch_size": 16, "lr": 0.003, "wd": 0.1, "warmup": 10, "eval_every": 15}
LTI = {"num_layers": 2, "hidden_dim": 16, "state_dim": 16, "activation": "full_glu", "input_dim": 32, "output_dim": 32,
       "norm": "batch", "prenorm": False, "pooling": "none", "dropout": 0.1}
# Everything that a cell's future depends on is in here somewhere: dropout, batch statistics, complex parameters.
MODELS = {
    "softmax": {"layer": "transformer", "attention_fn": "sm-attention", "dim_conv": 4, "num_layers": 2, "hidden_dim": 16,
                "state_dim": 16, "num_heads": 2, "vocab_size": 32, "output_dim": 32, "max_pos_embed": 16, "mixer": "none",
                "dropout": 0.1},
    "mamba2": {"layer": "mamba", "conv_dim": 4, "num_layers": 2, "hidden_dim": 16, "state_dim": 16, "num_heads": 1,
               "expansion": 1, "glu": True, "prenorm": True, "pooling": "none", "token_embedding": True, "vocab_size": 32,
               "output_dim": 32, "dropout": 0.1},
    "s4": dict(LTI, layer="s4"),
    "lru": dict(LTI, layer="lru", r_min=0.9, r_max=0.99),
}
# Long vectors in several stretches; sums over the shards coupled in one, not in the others; derived quantities that several
# members make (S4's seven slices), or one for all (LRU).
TEAM_MODELS = {
    "softmax": dict(MODELS["softmax"], num_layers=4, hidden_dim=64, state_dim=64),
    "s4": dict(MODELS["s4"], hidden_dim=110),
    "lru": dict(MODELS["lru"], num_layers=1, hidden_dim=128, state_dim=96, norm="layer"),
}
LONG = {"input_seq_length": 300, "num_train": 96, "num_valid": 16, "num_test": 16} # S4's kernels are then as long
FEW = {"total_steps": 24, "warmup": 5, "eval_every": 6}


def write_grid(folder, models):
    for name, model in models.items():
        train = dict(TRAIN, ssm_lr=0.001) if name in ("s4", "lru") else TRAIN
        long = model is TEAM_MODELS["s4"]
        with open(os.path.join(folder, name + ".json"), "w") as f:
            json.dump({"dataset": dict(MQAR, **LONG) if long else MQAR, "train": dict(train, **FEW) if long else train,
                       "model": model}, f)
    grid = os.path.join(folder, "grid.json")
    with open(grid, "w") as f:
        json.dump({"name": "chaos", "base": [name + ".json" for name in models], "seed": 1,
                   "analysis": {"batch_size": 4, "snapshots": 2, "hankel_samples": 1, "memory_samples": 1},
                   "run": {"checkpoint_minutes": 0.0005, "save_weights": True}}, f)  # a checkpoint every 0.03 s
    return grid


class Failure(Exception):
    pass


class Run:
    """One start under mpiexec."""

    def __init__(self, chaos, out, ranks, more=()):
        quiet = ["-q"] if chaos.openmpi else []
        self.chaos, self.out = chaos, out
        self.errors = tempfile.TemporaryFile(dir=chaos.folder)
        env = dict(chaos.env, SQ_PRELOAD_DIR=os.path.dirname(out), SQ_PRELOAD_FULL=chaos.flag)
        export = ["-x", "LD_PRELOAD=" + PRELOAD] if chaos.openmpi else ["-genv", "LD_PRELOAD", PRELOAD]
        self.p = subprocess.Popen([MPIEXEC] + quiet + ["-n", str(ranks)] + export +
                                  [PROGRAM, "run", chaos.grid, "--out", out, "--resume", "--quiet", *more],
                                  env=env, stdout=self.errors, stderr=self.errors, start_new_session=True)

    def ranks(self):
        found = []
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            try:
                if os.readlink(f"/proc/{name}/exe") != PROGRAM:
                    continue
                with open(f"/proc/{name}/cmdline", "rb") as f:
                    if self.out.encode() in f.read().split(b"\0"):
                        found.append(int(name))
            except OSError:
                continue
        return sorted(found)

    def rank_of(self, pid):
        """In the job, by what the launcher has told it."""
        try:
            with open(f"/proc/{pid}/environ", "rb") as f:
                told = dict(v.partition(b"=")[::2] for v in f.read().split(b"\0"))
            return int(told.get(b"OMPI_COMM_WORLD_RANK", told.get(b"PMI_RANK", b"0")))
        except OSError:
            return 0

    def wait_for_training(self, two=False):
        """Until the first checkpoint is there, or a cell has two, or the run is over."""
        folder = self.out + ".ckpt"
        while self.p.poll() is None:
            names = os.listdir(folder) if os.path.isdir(folder) else []
            if any(n.endswith(".old") for n in names) if two else names:
                return
            time.sleep(0.005)

    def wait(self, seconds):
        try:
            return self.p.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def end(self):
        """Exit status, once no process of it is left."""
        rc = self.wait(HANG_S)
        if rc is None:
            raise Failure(f"hangs: {self.text()}" + "".join(map(where_it_waits, [self.p.pid] + self.ranks())))
        for _ in range(HANG_S * 20):
            if not self.ranks():
                return rc
            time.sleep(0.05)
        raise Failure(f"mpiexec has ended, ranks {self.ranks()} have not")

    def text(self):
        self.errors.seek(0)
        text = self.errors.read().decode(errors="replace")
        return text if len(text) < 3000 else text[:1500] + "\n...\n" + text[-1500:]

    def destroy(self):
        for pid in self.ranks():
            send(pid, signal.SIGKILL)
        if self.p.poll() is None:
            self.p.kill()
            self.p.wait()
        self.errors.close()


def send(pid, sig):
    try:
        os.kill(pid, sig)
        return True
    except ProcessLookupError:
        return False


def state_of(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "gone"


def where_it_waits(pid):
    """Stacks of all of its threads, where there is a tool that shows them."""
    text = f"\n--- {pid} ({state_of(pid)})"
    for tool in (["eu-stack", "-p", str(pid)], ["gdb", "-p", str(pid), "-batch", "-ex", "thread apply all bt"]):
        if shutil.which(tool[0]):
            shown = subprocess.run(tool, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=HANG_S)
            return text + "\n" + shown.stdout[:8000] + shown.stderr[:500]
    return text


def catches(pid, sig):
    """The program has got as far as taking signals: before, the system ends it."""
    try:
        with open(f"/proc/{pid}/status") as f:
            for line in f:
                if line.startswith("SigCgt:"):
                    return bool(int(line.split()[1], 16) >> (sig - 1) & 1)
    except OSError:
        pass
    return False


class Chaos:
    KINDS = ["kill-rank", "kill-rank", "kill-mpirun", "kill-all", "term-rank", "term-mpirun", "usr1-rank", "usr1-mpirun",
             "stop-cont", "time-limit", "full-disk", "truncate", "flip"]
    TEAM_KINDS = ["kill-member", "kill-member", "kill-member", "kill-rank", "term-rank", "usr1-rank", "stop-cont", "full-disk"]

    def __init__(self, folder, verbose, teams):
        self.folder, self.verbose, self.teams = folder, verbose, teams
        if teams:
            self.KINDS = self.TEAM_KINDS
        self.grid = write_grid(folder, TEAM_MODELS if teams else MODELS)
        self.flag = os.path.join(folder, "full")
        self.openmpi = b"open" in subprocess.run([MPIEXEC, "--version"], capture_output=True).stdout.lower()
        self.env = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMPI_MCA_rmaps_base_oversubscribe="1",
                        OMPI_MCA_hwloc_base_binding_policy="none", OMPI_MCA_mpi_yield_when_idle="1", OMP_WAIT_POLICY="passive", TMPDIR=folder,
                        OMPI_MCA_btl_vader_backing_directory=folder)  # what a killed run leaves goes with the folder
        if not self.openmpi:  # Hydra passes no signals on
            self.KINDS = [k for k in self.KINDS if not k.endswith("-mpirun")]
        self.hits, self.starts, self.refused = collections.Counter(), 0, 0
        self.lost = self.differences = self.fallbacks = 0

    def say(self, *words):
        if self.verbose:
            print("   ", *words, flush=True)

    def start(self, out, ranks, more=()):
        self.starts += 1
        return Run(self, out, ranks, more)

    def reference(self):
        self.whole = os.path.join(self.folder, "whole.h5")
        begin = time.monotonic()
        run = self.start(self.whole, 1)
        if run.end() != 0:
            raise Failure("the uninterrupted run fails: " + run.text())
        self.whole_s = time.monotonic() - begin
        run.destroy()

    # ---- hits: each returns the exit statuses that are right afterwards (None: any), or False if it came too late

    def kill(self, pids):
        return None if any([send(p, signal.SIGKILL) for p in pids]) else False

    def ask(self, rng, run, sig, mpirun):
        """A program that takes signals stops in order; mpirun answers SIGTERM with a status of its own."""
        ranks = run.ranks()
        if not ranks:
            return False
        ready = all(catches(p, sig) for p in ranks)
        if mpirun and not ready:
            return False  # whether mpirun passes on what comes before all ranks are there is its own affair
        if not send(run.p.pid if mpirun else rng.choice(ranks), sig):
            return False
        return {0, STOPPED} if ready and not (mpirun and sig == signal.SIGTERM) else None

    def pause(self, rng, run):
        ranks = run.ranks()
        if not ranks:
            return False
        pid = rng.choice(ranks)
        if not send(pid, signal.SIGSTOP):
            return False
        time.sleep(rng.uniform(0.05, 0.6))
        send(pid, signal.SIGCONT)
        return {0}

    def fill_disk(self, rng, run):
        if run.p.poll() is not None:
            return False
        open(self.flag, "w").close()
        run.wait(rng.uniform(0.05, 0.6))
        os.remove(self.flag)
        return {0, OUTPUT}

    def hit(self, kind, rng, run):
        if kind in ("kill-rank", "truncate", "flip"):
            ranks = run.ranks()
            return self.kill([rng.choice(ranks)]) if ranks else False
        if kind == "kill-member":
            members = [p for p in run.ranks() if run.rank_of(p) > 0]
            return self.kill([rng.choice(members)]) if members else False
        if kind == "kill-mpirun":
            return self.kill([run.p.pid]) if run.p.poll() is None else False
        if kind == "kill-all":
            return self.kill([run.p.pid] + run.ranks()) if run.p.poll() is None else False
        if kind == "stop-cont":
            return self.pause(rng, run)
        if kind == "full-disk":
            return self.fill_disk(rng, run)
        return self.ask(rng, run, signal.SIGTERM if kind.startswith("term") else signal.SIGUSR1, kind.endswith("mpirun"))

    def damage(self, kind, rng, out):
        """The newest checkpoint of some cell."""
        folder = out + ".ckpt"
        names = [n for n in (sorted(os.listdir(folder)) if os.path.isdir(folder) else []) if n.rsplit("-", 1)[-1].isdigit()]
        if not names:
            return False
        path = os.path.join(folder, rng.choice(names))
        size = os.path.getsize(path)
        at = rng.randrange(size)
        with open(path, "r+b") as f:
            if kind == "truncate":
                f.truncate(at)
            else:
                f.seek(at)
                byte = f.read(1)[0]
                f.seek(at)
                f.write(bytes([byte ^ (1 << rng.randrange(8))]))
        self.say(kind, os.path.basename(path), "at", at, "of", size)
        return True

    # ---- what must hold

    def check_file(self, out, done):
        """done: cell -> what it had when it was done; such a cell never changes again."""
        if not os.path.exists(out):
            if done:
                raise Failure("the results file has gone")
            return 0
        status = subprocess.run([PROGRAM, "status", out], capture_output=True, text=True, env=self.env, timeout=HANG_S)
        if status.returncode != 0:
            raise Failure("status: " + status.stderr)
        with h5py.File(out, "r") as f:
            c = {k: f["cells/" + k][:] for k in ("status", "checksum", "run_segment", "run_wall_s")}
        now = {i: tuple(c[k][i] for k in c) for i in range(len(c["status"])) if c["status"][i] == DONE}
        for i, was in done.items():
            if now.get(i) != was:
                self.lost += 1
                print(f"FAILED: cell {i} was done: {was}, is {now.get(i)}")
        done.update(now)
        return len(c["status"]) - len(now)

    def compare(self, out):
        leave = [w for k in ("wall_s", "peak_bytes", "rank", "host", "segment") for w in ("--exclude-path", "/cells/run_" + k)]
        d = subprocess.run(["h5diff", "--exclude-path", "/cell", "--exclude-path", "/segments"] + leave + [self.whole, out],
                           capture_output=True, text=True)
        if d.returncode != 0:
            self.differences += 1
            print("FAILED: differs:", (d.stdout + d.stderr)[:500])
        left = [n for n in os.listdir(os.path.dirname(out)) if n != os.path.basename(out)]
        if left:
            raise Failure(f"left over: {left}")

    def one_start(self, rng, out, kind, done):
        """Whether the program itself said that all is done: a run that is killed after its last cell leaves the tidying to the next."""
        ranks = rng.choice([2, 4] if kind == "kill-member" else [1, 2, 4]) if self.teams else rng.randint(1, 4)
        delay = rng.uniform(0, 1.2 * self.whole_s)
        more = ["--time-limit", f"{max(1.0, delay):.2f}"] if kind == "time-limit" else []
        if self.teams:
            more += ["--team", str(ranks), "--threads", rng.choice("12")]
        run = self.start(out, ranks, more)
        try:
            if (self.teams and kind) or kind in ("truncate", "flip"):
                run.wait_for_training(two=not self.teams and rng.random() < 0.5)
            if kind in ("truncate", "flip"):
                delay *= 0.05  # while there are checkpoints
            right, hit = {0}, False
            if kind == "time-limit":
                right, hit = {0, STOPPED}, run.end() == STOPPED
            elif kind and run.wait(delay) is None:
                answer = self.hit(kind, rng, run)
                hit = answer is not False
                right = answer if hit else right
            if kind == "kill-mpirun" and hit:  # somebody may try at once: refused while a rank still writes
                again = self.start(out, 1)
                code = again.end()
                text = again.text()
                again.destroy()
                if code == USAGE and "is being written by" in text:
                    self.refused += 1
                elif code != 0:
                    raise Failure(f"a start right after mpirun was killed: status {code}: {text}")
            struck = time.monotonic()
            code = run.end()
            self.say(f"{ranks} ranks, {kind or 'no hit'} {'' if hit else '(too late) ' if kind else ''}after {delay:.2f} s: status {code}, "
                     f"{time.monotonic() - struck:.1f} s later")
            text = run.text()
            self.fallbacks += text.count("the one before is taken")
            if right is not None and code not in right:
                raise Failure(f"{ranks} ranks, {kind} after {delay:.2f} s: status {code}, expected {sorted(right)}: {text}")
            if right is None and code == 0 and kind.startswith("kill") and self.check_file(out, done) > 0:
                raise Failure("a killed run says that all is done")
        finally:
            if os.path.exists(self.flag):
                os.remove(self.flag)
            run.destroy()
        if hit and kind in ("truncate", "flip"):
            hit = self.damage(kind, rng, out)
        if hit:
            self.hits[kind] += 1
        left = self.check_file(out, done)
        if code == 0 and right is not None and left > 0:
            raise Failure(f"status 0, and {left} cells are not done: {text}")
        return code == 0 and left == 0

    def round(self, seed):
        rng = random.Random(seed)
        folder = tempfile.mkdtemp(dir=self.folder)
        out, done = os.path.join(folder, "c.h5"), {}
        plan = [rng.choice(self.KINDS) for _ in range(rng.randint(1, 3))]
        self.say("round", seed, plan)
        for k in range(40):
            if self.one_start(rng, out, plan[k] if k < len(plan) else None, done) and os.path.exists(out):
                break
        else:
            raise Failure("not done after 40 starts")
        self.compare(out)
        shutil.rmtree(folder)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--rounds", type=int, default=20)
    a.add_argument("--seed", type=int, default=1, help="of the first round; the others follow")
    a.add_argument("--kinds", nargs="+", choices=sorted(set(Chaos.KINDS + Chaos.TEAM_KINDS)), help="only these")
    a.add_argument("--teams", action="store_true", help="teams of 1, 2 and 4 ranks")
    a.add_argument("--verbose", action="store_true")
    o = a.parse_args()
    folder = os.path.realpath(tempfile.mkdtemp(prefix="sqc"))
    failed = rounds = 0
    begin = time.monotonic()
    try:
        chaos = Chaos(folder, o.verbose, o.teams)
        if o.kinds:
            chaos.KINDS = o.kinds
        chaos.reference()
        print(f"{len(TEAM_MODELS if o.teams else MODELS)} cells, uninterrupted {chaos.whole_s:.1f} s on one rank; rounds {o.seed} to {o.seed + o.rounds - 1}", flush=True)
        for seed in range(o.seed, o.seed + o.rounds):
            before = chaos.lost + chaos.differences
            try:
                chaos.round(seed)
            except (Failure, OSError, subprocess.SubprocessError) as e:
                failed += 1
                print(f"FAILED: round {seed}: {e}", flush=True)
            else:
                if chaos.lost + chaos.differences > before:
                    failed += 1
                    print(f"FAILED: round {seed}", flush=True)
            rounds += 1
            if rounds % 50 == 0:
                print(f"{rounds} rounds, {failed} failed, {time.monotonic() - begin:.0f} s", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    kinds = ", ".join(f"{k} {n}" for k, n in sorted(chaos.hits.items()))
    print(f"hits: {kinds}; refused while written: {chaos.refused}; checkpoints replaced by the one before: {chaos.fallbacks}")
    print(f"{rounds} rounds, {chaos.starts} starts, {sum(chaos.hits.values())} hits, {chaos.lost} cells lost, "
          f"{chaos.differences} differences, {failed} rounds failed, {time.monotonic() - begin:.0f} s")
    if not chaos.hits:
        print("FAILED: nothing was hit")
    return 1 if failed or not chaos.hits else 0


if __name__ == "__main__":
    sys.exit(main())
