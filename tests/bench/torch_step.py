#!/usr/bin/env python3
"""Time of training steps of the same models in PyTorch, as a careful user writes them.

    torch_step.py --shape small|mqar --attention softmax|linear|norm [--steps N] [--threads N] [--all-positions]
                  [--clock wall|cpu]

Forward, backward, clipping and AdamW; dropout off; the output layer at the labelled positions only, unless
--all-positions.  Where PyTorch has several ways (fused or masked softmax, chunked or quadratic sums, convolution
by F.conv1d or by shifted products), each is timed on two steps and the fastest one is used.
Prints one "name value" a line.
"""
import argparse
import itertools
import math
import statistics
import time

import torch
from torch import nn
from torch.nn import functional as F

SHAPES = {  # batch, length, width, layers, vocabulary, pairs
    "small": (64, 64, 64, 2, 256, 4),
    "mqar": (64, 512, 128, 2, 8192, 64),
}

CLOCK = time.perf_counter


class Attention(nn.Module):
    def __init__(self, width, length, kind, way):
        super().__init__()
        self.kind, self.way, self.width = kind, way, width
        self.extra = 1 if kind == "norm" else 0
        self.project = nn.Linear(width, 3 * width + self.extra)
        self.out = nn.Linear(width, width)
        self.register_buffer("lower", torch.ones(length, length).tril())
        self.register_buffer("mask", torch.full((length, length), -10000.0).triu(1))
        if kind == "norm":
            self.conv = nn.Conv1d(3 * width, 3 * width, 4, groups=3 * width, padding=3)
            self.offset = nn.Parameter(torch.tensor([4.0]))

    def convolve(self, x):  # (B, T, C): causal, depthwise, four taps
        length = x.shape[1]
        if self.way["conv"] == "conv1d":
            return self.conv(x.transpose(1, 2))[..., :length].transpose(1, 2)
        padded = F.pad(x, (0, 0, 3, 0))
        weight = self.conv.weight[:, 0]
        y = self.conv.bias + padded[:, :length] * weight[:, 0]
        for tap in range(1, 4):
            y = y + padded[:, tap : tap + length] * weight[:, tap]
        return y

    def softmax(self, q, k, v):
        if self.way["softmax"] == "fused":
            return F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None], is_causal=True)[:, 0]
        score = torch.baddbmm(self.mask, q, k.transpose(1, 2), alpha=1 / math.sqrt(self.width))
        return torch.bmm(score.softmax(-1), v)

    def causal_sum(self, q, k, v):  # sum over j <= i of (q_i . k_j) v_j
        batch, length, width = q.shape
        chunk = self.way["chunk"]
        if chunk >= length:
            return torch.bmm(torch.bmm(q, k.transpose(1, 2)) * self.lower, v)
        q, k, v = (x.reshape(batch, length // chunk, chunk, x.shape[-1]) for x in (q, k, v))
        state = torch.matmul(k.transpose(2, 3), v)
        before = F.pad(state.cumsum(1)[:, :-1], (0, 0, 0, 0, 1, 0))
        local = torch.matmul(q, k.transpose(2, 3)) * self.lower[:chunk, :chunk]
        return (torch.matmul(local, v) + torch.matmul(q, before)).reshape(batch, length, -1)

    def forward(self, u):
        x = self.project(u)
        if self.kind == "norm":
            qkv, n = x[..., : 3 * self.width], x[..., 3 * self.width :]
            v, q, k = F.silu(self.convolve(qkv)).chunk(3, -1)
            q, k = F.elu(q) + 1, (F.elu(k) + 1) / math.sqrt(self.width)
            y = torch.exp(-F.softplus(n + self.offset)) * self.causal_sum(q, k, v)
        elif self.kind == "linear":
            q, k, v = x.chunk(3, -1)
            q, k = F.elu(q) + 1, F.elu(k) + 1
            y = self.causal_sum(q, k, v) / (q * k.cumsum(1)).sum(-1, keepdim=True)
        else:
            q, k, v = x.chunk(3, -1)
            y = self.softmax(q, k, v)
        return self.out(y)


class Model(nn.Module):
    def __init__(self, shape, kind, way):
        super().__init__()
        _, length, width, layers, vocabulary, _ = shape
        self.word = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(length, width) if kind != "norm" else None
        self.attention = nn.ModuleList(Attention(width, length, kind, way) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))  # shared: used twice in a block
        self.norm = nn.LayerNorm(width)
        self.decoder = nn.Linear(width, vocabulary, bias=False)

    def forward(self, token, where):
        x = self.word(token)
        if self.position is not None:
            x = x + self.position.weight
        for attention, norm in zip(self.attention, self.norms):
            x = norm(attention(norm(x)) + x)
        x = self.norm(x)
        if where is not None:
            x = x.flatten(0, 1)[where]
        return self.decoder(x)


def make_batch(shape, seed):
    """Uniform keys, values and places: the arithmetic does not depend on them."""
    batch, length, _, _, vocabulary, pairs = shape
    generator = torch.Generator().manual_seed(seed)
    token = torch.randint(0, vocabulary, (batch, length), generator=generator)
    label = torch.full((batch, length), -100)
    slots = (length - 2 * pairs) // 2
    for row in range(batch):
        place = 2 * pairs + 2 * torch.randperm(slots, generator=generator)[:pairs]
        label[row, place] = torch.randint(vocabulary // 2, vocabulary, (pairs,), generator=generator)
    return token, label


def optimiser(model):
    for extra in ({"fused": True}, {"foreach": True}, {}):
        try:
            o = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1, **extra)
            o.zero_grad()
            return o
        except (TypeError, RuntimeError):
            continue
    raise SystemExit("torch_step.py: this PyTorch has no usable AdamW")


def time_steps(shape, kind, way, steps, everywhere, warm_up=2):
    torch.manual_seed(1)
    model = Model(shape, kind, way)
    opt = optimiser(model)
    times, loss = [], None
    for k in range(-warm_up, steps):
        token, label = make_batch(shape, k + warm_up)
        flat = label.flatten()
        where = None if everywhere else (flat != -100).nonzero()[:, 0]
        start = CLOCK()
        logits = model(token, where)
        target = flat if everywhere else flat[where]
        loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), target, ignore_index=-100)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        if k >= 0:
            times.append(CLOCK() - start)
    return times, float(loss.detach()), sum(p.numel() for p in model.parameters())


def ways(kind, length):
    softmax = ["masked"] + (["fused"] if hasattr(F, "scaled_dot_product_attention") else [])
    choice = {
        "softmax": softmax if kind == "softmax" else ["masked"],
        "chunk": [length] + [c for c in (64, 128) if c < length] if kind != "softmax" else [length],
        "conv": ["conv1d", "shifted"] if kind == "norm" else ["conv1d"],
    }
    return [dict(zip(choice, v)) for v in itertools.product(*choice.values())]


def fastest(shape, kind, everywhere):
    candidates = ways(kind, shape[1])
    if len(candidates) == 1:
        return candidates[0]
    return min(candidates, key=lambda way: min(time_steps(shape, kind, way, 2, everywhere, warm_up=1)[0]))


def sgemm_gflops(n=1024, runs=7):
    a, b = torch.rand(n, n), torch.rand(n, n)
    best = math.inf
    for _ in range(runs):
        start = CLOCK()
        torch.mm(a, b)
        best = min(best, CLOCK() - start)
    return 2 * n**3 / best * 1e-9


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--attention", choices=("softmax", "linear", "norm"), default="softmax")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--all-positions", action="store_true")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: for a busy machine, one thread")
    a = parser.parse_args()
    global CLOCK
    if a.clock == "cpu":
        CLOCK = time.process_time
    torch.set_num_threads(a.threads)
    shape = SHAPES[a.shape]
    way = fastest(shape, a.attention, a.all_positions)
    times, loss, parameters = time_steps(shape, a.attention, way, a.steps, a.all_positions)
    print("torch", torch.__version__)
    print("way", " ".join(f"{k}={v}" for k, v in way.items()))
    print("parameters", parameters)
    print("last_loss", round(loss, 4))
    print(f"step_ms_median {1e3 * statistics.median(times):.3f}")
    print(f"step_ms_min {1e3 * min(times):.3f}")
    print(f"step_ms_max {1e3 * max(times):.3f}")
    print(f"sgemm_1024_gflops {sgemm_gflops():.2f}")


if __name__ == "__main__":
    main()
