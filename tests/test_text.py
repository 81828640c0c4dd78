"""Text: datasets of words and characters, networks for them, and what they are judged by."""

from __future__ import annotations

import json
import math
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import torch
import zygote
from test_plugins import lreg
from torch import nn
from torch.func import grad, grad_and_value, vjp, vmap
from torch.nn import functional as F

from engine import penalties
from engine.base.errors import DataError, PresetError
from engine.base.flat import curvature_along, gradients_and_losses, hessian_vector_products
from engine.runs.store import RunReader
from engine.tasks.criteria import NextToken
from engine.tasks.datasets import shakespeare, tokens
from engine.tasks.datasets.base import DATASETS
from engine.tasks.optimizees.base import OPTIMIZEES
from engine.tasks.supervised import MEASURED_WINDOWS, Examples
from engine.tasks.table import build_task

CPU, F64 = torch.device("cpu"), torch.float64
SENTENCES = {
    "train": ["1 a good film", "0 a bad , bad film", "1 good , good", "0 bad", "1 a film it is", "0 it is it"],
    "dev": ["1 good unheard", "0 bad film"],
    "test": ["0 a bad unheard word", "1 a film", "1 it"],
}


def a_task(dataset="shakespeare-excerpt", optimizee="gpt", *, data_dir=None, dtype=torch.float32, **values):
    table = {"dataset": dataset, "optimizee": optimizee, "batch_size": 4, **values}
    return build_task(table, data_dir=data_dir, device=CPU, dtype=dtype)


def refusal(*given, **values) -> str:
    with pytest.raises((DataError, PresetError)) as caught:
        a_task(*given, **values)
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)
    return str(caught.value)


def own_text(tmp_path: Path, content: str | bytes = "to be, or not to be: that is the question. " * 20) -> Path:
    path = tmp_path / "own.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.fixture
def sentences(tmp_path) -> Path:
    (tmp_path / "sst2").mkdir()
    for split, lines in SENTENCES.items():
        (tmp_path / "sst2" / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


# -- sentences ---------------------------------------------------------------------------------------------------------


def test_words_are_numbered_by_the_training_part_alone(sentences):
    """By frequency, then by the alphabet: a bad film good it (3 each), `,` is (2); others are 1, and 0 is padding."""
    words = Counter(word for line in SENTENCES["train"] for word in line.split()[1:])
    order = [word for _, word in sorted((-count, word) for word, count in words.items())]
    task = a_task("sst2", "bow", data_dir=sentences, length=5)
    assert task.dataset.vocabulary == 2 + len(words) and "unheard" not in words
    test = task.fixed_batch(10, "test")
    expected = [
        [2 + order.index(word) if word in words else 1 for word in line.split()[1:]] for line in SENTENCES["test"]
    ]
    assert test.x.tolist() == [row + [0] * (5 - len(row)) for row in expected] and test.x.dtype == torch.int64
    assert test.y.tolist() == [0, 1, 1]


def test_rare_words_are_unknown_and_sentences_are_cut(sentences):
    few = a_task("sst2", "bow", data_dir=sentences, most_words=2, length=2)
    assert few.dataset.vocabulary == 4 and few.fixed_batch(10, "test").x.shape == (3, 2)
    often = a_task("sst2", "bow", data_dir=sentences, least_count=3)
    kept = {word for word, count in Counter(" ".join(SENTENCES["train"]).split()).items() if count >= 3} - {"0", "1"}
    assert often.dataset.vocabulary == 2 + len(kept)
    assert (few.fixed_batch(10).x < 4).all()


def test_dev_belongs_to_the_training_set_and_not_to_the_vocabulary(sentences):
    task = a_task("sst2", "bow", data_dir=sentences, validation=0.25, least_count=1)
    assert [task.size(split) for split in ("train", "validation", "test")] == [6, 2, 3]
    both = [task.fixed_batch(10, split) for split in ("train", "validation")]
    sentences_read = sorted(row for batch in both for row in batch.x.tolist())
    assert len(sentences_read) == 8
    assert sum(1 in row for row in sentences_read) == 1  # "unheard"


@pytest.mark.parametrize("line", ["a film without a label", "2 a film", "1", "0 ", "", "01 a film"])
def test_a_line_that_is_no_labelled_sentence_is_named(sentences, line):
    path = sentences / "sst2" / "test.txt"
    path.write_text("\n".join(["1 a film", line, "0 bad"]))
    assert refusal("sst2", "bow", data_dir=sentences).startswith(f"sst2: {path}, line 2: found ")


def test_missing_files_are_told_with_what_they_are_to_hold(tmp_path):
    text = refusal("sst2", "bow", data_dir=tmp_path)
    assert f"not in {tmp_path}" in text and "sst2/train.txt, sst2/dev.txt, sst2/test.txt (a line is 0 or 1" in text
    assert "put there: tinyshakespeare/input.txt" in refusal("tinyshakespeare", data_dir=tmp_path)


# -- texts -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["characters", "bytes"])
def test_a_text_is_told_token_by_token(tmp_path, kind):
    content = "Fürchtet nicht, was ihr hört; flieht, was ihr nicht hört! " * 8
    task = a_task("text", path=str(own_text(tmp_path, content)), tokens=kind, length=9)
    whole = list(content.encode()) if kind == "bytes" else [sorted(set(content)).index(letter) for letter in content]
    assert task.dataset.vocabulary == (256 if kind == "bytes" else len(set(content)))
    batch = task.batches([3]).draw(2)[1].of(0)
    assert batch.x.shape == batch.y.shape == (4, 9) and batch.x.dtype == batch.y.dtype == torch.int64
    text = "".join(map(chr, whole))
    for x, y in zip(batch.x.tolist(), batch.y.tolist(), strict=True):
        assert x[1:] == y[:-1] and "".join(map(chr, [*x, y[-1]])) in text


def test_characters_that_the_training_part_lacks_are_one_token_more(tmp_path):
    task = a_task("text", path=str(own_text(tmp_path, "ab" * 90 + "é☃" * 10)), length=3)
    assert task.dataset.vocabulary == 3
    assert set(task.fixed_batch(100, "test").x.flatten().tolist()) == {2}


def test_no_window_crosses_a_split(tmp_path):
    """Every token is another character, so that windows tell where they are from."""
    content = "".join(map(chr, range(0x4E00, 0x4E00 + 1000)))
    task = a_task("text", path=str(own_text(tmp_path, content)), length=7, validation=0.2)
    x, y = task.examples["train"].x, task.examples["train"].y
    limits = {"train": (0, 720), "validation": (720, 900)}
    for split, (first, after) in limits.items():
        order = task.examples[split].order
        assert order.tolist() == list(range(first, after - 7))
        assert int(x[order].min()) == first and int(y[order + 6].max()) == after - 1
    assert task.size("test") == 100 - 7
    assert x.dtype == torch.int16 and x.numel() == 899  # the stream itself, and no windows
    assert x.untyped_storage().data_ptr() == y.untyped_storage().data_ptr()


def test_whole_splits_are_measured_by_windows_that_do_not_overlap():
    x = torch.arange(100_001)
    examples = Examples(x[:-1], x[1:], torch.arange(0, 100_000 - 8), window=8)
    assert len(examples.measured) == MEASURED_WINDOWS
    starts = examples.measured.tolist()
    assert len(set(starts)) == len(starts) and all(start % 8 == 0 for start in starts)
    assert max(starts) > 90_000 and min(starts) < 10_000
    few = Examples(x[:-1], x[1:], torch.arange(40), window=8)
    assert sorted(few.measured.tolist()) == [0, 8, 16, 24, 32]


@pytest.mark.parametrize(
    ("content", "values", "words"),
    [
        (b"", {}, "own.txt: found 0 bytes; allowed: a text in UTF-8"),
        (b"\xef\xbb\xbf", {}, "found 0 bytes"),
        (b"abc\xffdef", {}, "found byte 0xff at 3, which is not UTF-8"),
        (b"abc\xffdef", {"tokens": "bytes"}, "which is not UTF-8"),
        (b"a", {}, "own.txt: found 1 characters"),
        (
            b"to be or not to be" * 5,
            {"length": 9},
            "found 9 characters in the test part; allowed: more than task.length",
        ),
        (b"to be or not to be" * 5, {"length": 8, "validation": 0.05}, "task.validation: found no validation examples"),
        (b"to be or not to be" * 5, {"length": 8, "classes": (0, 1)}, "task.classes"),
        (b"to be or not to be" * 5, {"length": 4, "heads": 3}, "task.heads: found 3; allowed: a divisor"),
    ],
)
def test_texts_that_do_not_fit_are_one_line(tmp_path, content, values, words):
    assert words in refusal("text", path=str(own_text(tmp_path, content)), **values)


def test_what_is_no_text_file_is_one_line(tmp_path, monkeypatch):
    assert "task.path" in refusal("text")
    for path in (tmp_path, tmp_path / "nowhere", Path("/dev/zero"), tmp_path / "null\0"):
        assert refusal("text", path=str(path)).startswith("text: ")
    monkeypatch.setattr(tokens, "LARGEST", 10)
    assert "found more than 10 bytes" in refusal("text", path=str(own_text(tmp_path)))


def test_the_excerpt_comes_with_lreg_and_is_whole(tmp_path, monkeypatch):
    data = DATASETS.create("shakespeare-excerpt").read(tmp_path)
    assert data.train_inputs.dtype == torch.uint8 and len(data.train_inputs) + len(data.test_inputs) == 99_843 - 2
    damaged = tmp_path / "shakespeare.txt.gz"
    monkeypatch.setattr(shakespeare, "FILE", damaged)
    for content in (None, b"damaged"):
        if content:
            damaged.write_bytes(content)
        with pytest.raises(DataError, match="install lreg again"):
            DATASETS.create("shakespeare-excerpt").read(tmp_path)


# -- what a text is judged by ------------------------------------------------------------------------------------------


def test_the_next_token_is_judged_by_its_cross_entropy():
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(5, 7, 11, generator=generator, dtype=F64)
    targets = torch.randint(11, (5, 7), generator=generator)
    chances = outputs.softmax(-1).gather(-1, targets[..., None])
    loss = -chances.log().mean()
    criterion = NextToken()
    torch.testing.assert_close(criterion.loss(outputs, targets), loss)
    summary = criterion.summary({name: score.mean() for name, score in criterion.scores(outputs, targets).items()})
    assert list(summary) == [metric.name for metric in criterion.measured]
    torch.testing.assert_close(summary["loss"], loss)
    torch.testing.assert_close(summary["perplexity"], loss.exp())
    torch.testing.assert_close(summary["bits_per_character"], -chances.log2().mean())
    torch.testing.assert_close(summary["accuracy"], (outputs.argmax(-1) == targets).double().mean())
    assert [metric.better for metric in criterion.measured] == ["lower", "lower", "lower", "higher"]
    assert "bits_per_character" not in {metric.name for metric in NextToken(characters=False).measured}


def test_a_split_is_measured_as_a_whole():
    """The mean over all its windows, not of the chunks' perplexities."""
    task = a_task(length=32, width=8, dtype=F64)
    theta, windows = task.init_theta(0), task.examples["test"].measured
    x, y = task.examples["test"].at(windows)
    loss = F.cross_entropy(task.outputs(theta, x).flatten(0, 1), y.flatten())
    metrics = task.metrics(theta, "test")
    torch.testing.assert_close(metrics["loss"], loss)
    torch.testing.assert_close(metrics["perplexity"], loss.exp())
    torch.testing.assert_close(metrics["bits_per_character"], loss / math.log(2))


# -- networks ----------------------------------------------------------------------------------------------------------

NETWORKS = [
    ("shakespeare-excerpt", "gpt", {"length": 6, "width": 8, "init": "uniform"}),
    ("shakespeare-excerpt", "gpt", {"length": 6, "width": 8, "tied": True, "init": "uniform"}),
    ("sst2", "bow", {"length": 6, "width": 4}),
    ("sst2", "lstm-classifier", {"length": 6, "width": 4, "units": 5}),
    ("sst2", "lstm-classifier", {"length": 6, "width": 4, "units": 5, "pooling": "last"}),
    ("digits", "vit", {"width": 8, "init": "uniform"}),
]


def network(dataset, optimizee, settings, sentences):
    """A task in float64, two optimizees' parameters and their batches."""
    task = a_task(dataset, optimizee, data_dir=sentences, dtype=F64, **settings)
    theta = torch.stack([task.init_theta(seed) for seed in range(2)])
    return task, theta, task.batches([0, 1]).draw(1)[0]


@pytest.mark.parametrize(("dataset", "optimizee", "settings"), NETWORKS)
def test_networks_side_by_side_are_each_by_itself(sentences, dataset, optimizee, settings):
    """Loss, gradient, Hessian-vector product and the slope of a curvature, under vmap and alone; the last two against
    differences."""
    task, theta, batch = network(dataset, optimizee, settings, sentences)
    vectors = torch.randn(theta.shape, generator=torch.Generator().manual_seed(1), dtype=F64)
    gradients, losses = vmap(grad_and_value(task.loss))(theta, batch)
    fast_gradients, fast_losses = gradients_and_losses(task.loss, theta, batch)
    products = hessian_vector_products(task.loss, theta, batch, vectors)
    slopes = vmap(lambda point, part, v: curvature_along(lambda at: task.loss(at, part), point, v[None])[1])(
        theta, batch, vectors
    )
    for place in range(2):
        alone, point, vector = batch.of(place), theta[place], vectors[place]
        of_alone = lambda at, alone=alone: task.loss(at, alone)  # noqa: E731
        gradient = grad(of_alone)
        expected = gradient(point)
        for each in (gradients, fast_gradients):
            torch.testing.assert_close(each[place], expected, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(torch.stack([losses[place], fast_losses[place]]), of_alone(point).expand(2))
        torch.testing.assert_close(products[place], vjp(gradient, point)[1](vector)[0], rtol=1e-9, atol=1e-12)
        step = 1e-5
        ahead, behind = point + step * vector, point - step * vector
        difference = (gradient(ahead) - gradient(behind)) / (2 * step)
        torch.testing.assert_close(products[place], difference, rtol=1e-5, atol=1e-8)
        curvatures = [curvature_along(of_alone, at, vector[None])[0] for at in (ahead, behind)]
        along = (curvatures[0] - curvatures[1]) / (2 * step)
        torch.testing.assert_close(slopes[place] @ vector, along, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("dataset", "optimizee", "settings"), NETWORKS)
def test_starts_follow_the_seed_alone(sentences, dataset, optimizee, settings):
    task, theta, _ = network(dataset, optimizee, settings, sentences)
    assert torch.equal(theta[0], task.init_theta(0)) and not torch.equal(theta[0], theta[1])
    assert theta.isfinite().all()


def test_gpt_does_not_see_what_comes_later(sentences):
    task, theta, batch = network("shakespeare-excerpt", "gpt", {"length": 6, "width": 8}, sentences)
    before = batch.x[0]
    after = before.clone()
    after[:, 4] = (after[:, 4] + 1) % task.dataset.vocabulary
    logits, changed = task.outputs(theta[0], before), task.outputs(theta[0], after)
    assert torch.equal(logits[:, :4], changed[:, :4])
    assert (logits[:, 4:] != changed[:, 4:]).any(-1).all()


@pytest.mark.parametrize("tied", [False, True])
def test_gpt_is_torchs_attention_and_layers(sentences, tied):
    settings = {"length": 6, "width": 8, "heads": 2, "layers": 2, "tied": tied, "init": "uniform"}
    task, theta, batch = network("shakespeare-excerpt", "gpt", settings, sentences)
    parts, x = task.layout.split(theta[0]), batch.x[0]

    def norm(name, h):
        return F.layer_norm(h, (8,), parts[f"{name}.weight"], parts[f"{name}.bias"])

    def linear(name, h):
        return F.linear(h, parts[f"{name}.weight"], parts.get(f"{name}.bias"))

    h = parts["tokens.weight"][x] + parts["positions.weight"]
    for block in ("blocks.0", "blocks.1"):
        inputs = linear(f"{block}.attention.query_key_value", norm(f"{block}.attention_norm", h))
        q, k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in inputs.chunk(3, -1))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        h = h + linear(f"{block}.attention.output", mixed)
        hidden = F.gelu(linear(f"{block}.hidden", norm(f"{block}.network_norm", h)))
        h = h + linear(f"{block}.output", hidden)
    h = norm("norm", h)
    expected = h @ parts["tokens.weight"].T if tied else linear("output", h)
    torch.testing.assert_close(task.outputs(theta[0], x), expected, rtol=1e-9, atol=1e-11)
    assert ("output.weight" in parts) != tied


def test_gpts_start_is_that_of_gpt2():
    task = a_task(width=64, layers=3)
    parts = task.layout.split(task.init_theta(0))
    for name, part in parts.items():
        if name.endswith("bias"):
            assert not part.any()
        elif "norm" in name:
            assert (part == 1).all()
        else:
            is_residual = name.endswith(("attention.output.weight", "blocks.0.output.weight"))
            is_residual |= name.startswith("blocks.") and name.split(".")[2:] == ["output", "weight"]
            expected = 0.02 / math.sqrt(2 * 3) if is_residual else 0.02
            assert abs(part.std() / expected - 1) < 0.05, name


def test_vit_sees_every_patch_through_one_layer():
    """With no block's influence: the mean over the patches of norm(W patch + b + position), then the output."""
    task = a_task("digits", "vit", width=8, patch=4, dtype=F64, init="uniform")
    theta, batch = task.init_theta(0), task.batches([0]).draw(1)[0].of(0)
    parts = task.layout.split(theta)
    for name in parts:
        if name.startswith("blocks.") and ".output." in name:
            parts[name].zero_()  # views of theta
    patches = F.unfold(batch.x, 4, stride=4).transpose(1, 2)  # [D, L, C * 16]
    h = patches @ parts["patches.weight"].T + parts["patches.bias"] + parts["positions.weight"]
    h = F.layer_norm(h, (8,), parts["norm.weight"], parts["norm.bias"]).mean(1)
    torch.testing.assert_close(task.outputs(theta, batch.x), h @ parts["output.weight"].T + parts["output.bias"])
    assert "task.patch: found 3" in refusal("digits", "vit", patch=3)
    assert task.layout.fan_in("patches.weight") == 16 and task.layout.fan_in("positions.weight") is None


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_the_lstm_is_torchs(sentences, pooling):
    """On sentences of different lengths, each without its padding."""
    settings = {"length": 6, "width": 4, "units": 5, "pooling": pooling}
    task, theta, batch = network("sst2", "lstm-classifier", settings, sentences)
    parts = task.layout.split(theta[0])
    lstm = nn.LSTM(4, 5, batch_first=True, dtype=F64)
    with torch.no_grad():
        lstm.weight_ih_l0.copy_(parts["input.weight"])
        lstm.weight_hh_l0.copy_(parts["hidden.weight"])
        lstm.bias_ih_l0.copy_(parts["input.bias"])
        lstm.bias_hh_l0.zero_()
    x = torch.cat([batch.x[0], torch.tensor([[3, 0, 0, 0, 0, 0], [2, 3, 4, 5, 6, 2]])])
    outputs = task.outputs(theta[0], x)
    for sentence, output in zip(x, outputs, strict=True):
        states = lstm(parts["words.weight"][sentence[sentence != 0]][None])[0][0]
        pooled = states[-1] if pooling == "last" else states.mean(0)
        torch.testing.assert_close(output, pooled @ parts["output.weight"].T + parts["output.bias"])


def test_a_bag_of_words_is_their_mean(sentences):
    task, theta, batch = network("sst2", "bow", {"length": 6, "width": 4}, sentences)
    parts = task.layout.split(theta[0])
    x = torch.cat([batch.x[0], torch.zeros(1, 6, dtype=torch.int64)])
    for sentence, output in zip(x, task.outputs(theta[0], x), strict=True):
        words = sentence[sentence != 0]
        mean = parts["words.weight"][words].sum(0) / max(len(words), 1)
        torch.testing.assert_close(output, mean @ parts["output.weight"].T + parts["output.bias"])


@pytest.mark.parametrize(
    ("dataset", "optimizee", "allowed"),
    [
        ("sst2", "gpt", "allowed: bow, lstm-classifier (sst2 has tokens, with a target for each example)"),
        ("sst2", "mlp", "allowed: bow, lstm-classifier"),
        ("shakespeare-excerpt", "bow", "allowed: gpt (shakespeare-excerpt has tokens, each with the next one"),
        ("shakespeare-excerpt", "conv3", "allowed: gpt"),
        ("digits", "gpt", "mlp-xh, resnet18, vit (digits has numbers, as images and features)"),
        ("digits", "lstm-classifier", "digits has numbers"),
    ],
)
def test_an_optimizee_for_something_else_is_refused(sentences, dataset, optimizee, allowed):
    text = refusal(dataset, optimizee, data_dir=sentences)
    assert text.startswith(f'task.optimizee: found "{optimizee}"; ') and allowed in text


def test_layer_norms_have_a_third_derivative(tmp_path):
    """torch's own kernel has a wrong one, in silence: what the penalty on the Hessian's trace goes by."""
    task = a_task(length=4, width=4, layers=1, dtype=F64, init="uniform")
    theta, batch = task.init_theta(0), task.batches([0]).draw(1)[0].of(0)
    penalty = penalties.get("hessian_trace")
    loss = lambda at: task.loss(at, batch)  # noqa: E731
    slope = penalty.value_and_grad(loss, theta)[1]
    direction = torch.randn(len(theta), generator=torch.Generator().manual_seed(0), dtype=F64)
    ahead, behind = (penalty.value_and_grad(loss, theta + step * direction)[0] for step in (1e-5, -1e-5))
    torch.testing.assert_close(slope @ direction, (ahead - behind) / 2e-5, rtol=1e-5, atol=1e-8)


def test_every_text_network_names_what_it_is_for():
    forms = {name: OPTIMIZEES[name].form for name in ("gpt", "bow", "lstm-classifier", "vit", "mlp-tanh")}
    assert forms == {
        "gpt": "text",
        "bow": "tokens",
        "lstm-classifier": "tokens",
        "vit": "numbers",
        "mlp-tanh": "numbers",
    }


# -- from the command line ---------------------------------------------------------------------------------------------

TINY = """
[task]
dataset = "{dataset}"
optimizee = "gpt"
batch_size = 2
{task}

[optimizer]
kind = "simple"

[meta]
epochs = 1
inner_steps = 2
truncation = 2

[evaluation]
optimizees = 1
radii = [0.05]
examples = 2
restarts = 1
ascent_steps = 1
extended = false
final_optimizees = 0
"""
PLUGIN = '''
"""A text dataset and a loss of one's own, in one file."""

from torch.nn import functional as F

from engine.base.metrics import Metric
from engine.tasks.criteria import NextToken
from engine.tasks.datasets.base import DATASETS
from engine.tasks.datasets.tokens import NextTokenDataset


class Smoothed(NextToken):
    """Cross-entropy with smoothed labels; whether the token is among the three likeliest."""

    def __init__(self):
        super().__init__()
        self.measured = (*self.measured, Metric("top_three", unit="share", better="higher", kind="task"))

    def loss(self, outputs, targets):
        return F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), label_smoothing=0.1)

    def scores(self, outputs, targets):
        among = (outputs.topk(3, -1).indices == targets[..., None]).any(-1)
        return super().scores(outputs, targets) | {"top_three": among.to(outputs.dtype).mean(1)}


@DATASETS.register("counting")
class Counting(NextTokenDataset):
    """The numbers, one after another."""

    criterion = Smoothed()

    def text(self, folder):
        return " ".join(map(str, range(600))).encode()
'''


@pytest.fixture
def quick(forked):
    """The command line, forked from a process that has imported torch."""
    return partial(lreg, run=zygote.run)


def test_gpt_is_meta_trained_and_transferred(tmp_path, quick):
    """And what is read of it is bits per character: it is what the task is judged by."""
    (tmp_path / "tiny.toml").write_text(TINY.format(dataset="shakespeare-excerpt", task="length = 16"))
    done = quick(tmp_path, "run", "tiny.toml", "--runs-dir", "runs")
    assert done.returncode == 0, done.stderr
    assert "test bits per" in done.stdout + done.stderr
    (run,) = (tmp_path / "runs").glob("2*-tiny-*")
    figures = RunReader(run).figures()
    assert 3 < figures["test_bits_per_character"] < 10 and 0 <= figures["test_accuracy"] <= 1
    bits = math.log2(figures["test_perplexity"])
    assert abs(bits / figures["test_bits_per_character"] - 1) < 1e-3  # of one optimizee
    done = quick(tmp_path, "transfer", "last", "--runs-dir", "runs", "--seeds", "1", "--steps", "2", "--json")
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout.splitlines()[-1])["seeds"][0]["marks"][-1]
    assert measured["test_perplexity"] > 1 and measured["sharpness"]
    shown = quick(tmp_path, "compare", "last", "last", "--runs-dir", "runs", "--markdown")
    assert "bits per character" in shown.stdout


def test_a_text_and_a_loss_from_outside_are_one_file(tmp_path, quick):
    (tmp_path / "mine.py").write_text(PLUGIN)
    (tmp_path / "mine.toml").write_text(TINY.format(dataset="counting", task="length = 8\nwidth = 8\nlayers = 1"))
    done = quick(tmp_path, "run", "mine.toml", "--runs-dir", "runs", "--plugin", "mine.py")
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs").glob("2*-mine-*")
    reader = RunReader(run)
    assert 0 <= reader.figures()["test_top_three"] <= 1 and reader.measured["top_three"].better == "higher"
    refused = quick(
        tmp_path, "run", "mine.toml", "--runs-dir", "runs", "--plugin", "mine.py", "--set", "task.length=900"
    )
    assert refused.returncode == 2 and "counting: found" in refused.stderr and "Traceback" not in refused.stderr
