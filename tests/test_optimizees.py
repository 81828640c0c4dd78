"""Optimizees: every member on every input shape, and the sizes, starts and derivatives they promise."""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, grad_and_value, jvp, vjp, vmap
from torch.nn import functional as F

from engine.base.flat import grad_and_hvp
from engine.base.settings import schema_of
from engine.tasks.optimizees.base import OPTIMIZEES, dropped, write_out_norms
from engine.tasks.optimizees.resnet18 import ResNet18, batch_norm

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32)]
EXAMPLES = 3
FOR_IMAGES = [name for name in OPTIMIZEES.names() if OPTIMIZEES[name].form == "numbers"]  # of text: test_text.py
EVERY = list(itertools.product(FOR_IMAGES, SHAPES))


class Network:
    """An optimizee as a function of flat theta, on a few random examples; written apart from engine/tasks.py."""

    def __init__(self, name, shape, classes=10, **settings):
        self.optimizee = OPTIMIZEES.create(name, **settings)
        self.module = self.optimizee.build(shape, classes)
        write_out_norms(self.module)  # as a task does
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(2, EXAMPLES, *shape, generator=generator, dtype=torch.float64)
        self.y = torch.randint(0, classes, (2, EXAMPLES), generator=generator)

    def theta(self, seed=0):
        return self.optimizee.init_theta(self.module, torch.Generator().manual_seed(seed)).double()

    def logits(self, theta, x, noise=None):
        values, start = {}, 0
        for name, parameter in self.module.named_parameters():
            values[name] = theta[start : start + parameter.numel()].view(parameter.shape)
            start += parameter.numel()
        return functional_call(self.module, values, (x,) if noise is None else (x, noise))

    def loss(self, theta, x, y):
        return F.cross_entropy(self.logits(theta, x), y)


def count(name, shape, classes=10, **settings):
    module = OPTIMIZEES.create(name, **settings).build(shape, classes)
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    "name, shape, expected",
    [
        ("mlp", (1, 28, 28), 15_910),
        ("mlp-relu", (1, 28, 28), 15_910),
        ("mlp", (3, 32, 32), 61_670),
        ("mlp-xh", (1, 28, 28), 25_450),
        ("lenet", (1, 28, 28), 21_840),
        ("conv3", (3, 32, 32), 20_682),
        ("cnn", (3, 32, 32), 20_682),
        (
            "cnn",
            (1, 28, 28),
            20_106,
        ),  # one input channel: 2 * 32 * 9 = 576 fewer, the linear layer keeps its 128 inputs
        ("resnet18", (3, 32, 32), 11_173_962),
        # weights, 4 * 32 biases, scales and shifts, and a linear layer of 5 * 5 * 32 inputs or 32
        ("conv4", (3, 84, 84), 864 + 27_648 + 3 * 128 + 8_010),
        ("conv4", (1, 28, 28), 288 + 27_648 + 3 * 128 + 330),
        ("mlp", (1, 8, 8), 1_510),
    ],
)
def test_sizes_are_those_of_the_literature(name, shape, expected):
    with torch.device("meta"):
        assert count(name, shape) == expected


@pytest.mark.parametrize("name, shape, init", [(*pair, ("normal", "uniform")[k % 2]) for k, pair in enumerate(EVERY)])
def test_every_optimizee_starts_finite_on_every_shape_with_any_classes(name, shape, init):
    network = Network(name, shape, classes=7, init=init)
    theta = network.theta()
    assert theta.shape == (sum(parameter.numel() for parameter in network.module.parameters()),)
    assert not list(network.module.buffers())  # nothing that a forward pass could change
    logits = network.logits(theta, network.x[0])
    outputs = 7 if network.optimizee.criterion is None else math.prod(shape)  # of an autoencoder its inputs
    assert logits.shape == (EXAMPLES, outputs) and logits.isfinite().all()


@pytest.mark.parametrize("name, shape", [pair for pair in EVERY if pair[0] != "resnet18"])  # that: test_tasks.py
def test_vmap_equals_a_loop_in_float64(name, shape):
    network = Network(name, shape)
    theta = torch.stack([network.theta(seed) for seed in range(2)])
    assert not torch.equal(theta[0], theta[1])
    gradient, loss = vmap(grad_and_value(network.loss))(theta, network.x, network.y)
    assert gradient.dtype == torch.float64
    for k in range(2):
        expected_gradient, expected = grad_and_value(network.loss)(theta[k], network.x[k], network.y[k])
        torch.testing.assert_close(loss[k], expected, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(gradient[k], expected_gradient, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize(
    "name, shape",
    [(name, SHAPES[k % len(SHAPES)]) for k, name in enumerate(name for name in FOR_IMAGES if name != "resnet18")],
)
def test_hessian_vector_products_agree_with_each_other_and_with_differences_of_gradients(name, shape):
    network = Network(name, shape)
    theta = torch.stack([network.theta(seed) for seed in range(2)])
    direction = torch.randn(theta.shape[1], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    direction /= direction.norm()

    def product(point, x, y):
        return vjp(grad(lambda q: network.loss(q, x, y)), point)[1](direction)[0]

    products = vmap(product)(theta, network.x, network.y)

    gradient = grad(lambda q: network.loss(q, network.x[0], network.y[0]))
    torch.testing.assert_close(products[0], jvp(gradient, (theta[0],), (direction,))[1], rtol=1e-8, atol=1e-10)
    step = 1e-6  # small: a ReLU that switches on the way spoils the difference
    difference = (gradient(theta[0] + step * direction) - gradient(theta[0] - step * direction)) / (2 * step)
    torch.testing.assert_close(products[0], difference, rtol=1e-4, atol=1e-7)
    assert products[0].norm() > 1e-6


def test_gradient_of_the_sigmoid_mlp_equals_central_differences():
    network = Network("mlp", (1, 8, 8), hidden=(3,), init="uniform")
    theta, x, y = network.theta(), network.x[0], network.y[0]
    gradient = grad(network.loss)(theta, x, y)
    step = 1e-6
    for coordinate in range(0, len(theta), 7):
        shift = torch.zeros_like(theta)
        shift[coordinate] = step
        expected = (network.loss(theta + shift, x, y) - network.loss(theta - shift, x, y)) / (2 * step)
        torch.testing.assert_close(gradient[coordinate], expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name, activation", [("mlp", torch.sigmoid), ("mlp-relu", torch.relu), ("mlp-xh", torch.relu)])
def test_an_mlp_is_its_formula(name, activation):
    """logits = W2 a(W1 x + b1) + b2, and theta is W1, b1, W2, b2."""
    network = Network(name, (1, 8, 8), classes=4, hidden=(5,), init="uniform")
    theta = network.theta()
    w1, b1, w2, b2 = theta.split([5 * 64, 5, 4 * 5, 4])
    hidden = activation(network.x[0].flatten(1) @ w1.view(5, 64).T + b1)
    torch.testing.assert_close(network.logits(theta, network.x[0]), hidden @ w2.view(4, 5).T + b2)


@pytest.mark.parametrize("shape, padding", [((1, 28, 28), 0), ((3, 32, 32), 0), ((1, 8, 8), 2)])
def test_lenet_is_two_pooled_convolutions_and_two_linear_layers(shape, padding):
    features = {(1, 28, 28): 320, (3, 32, 32): 500, (1, 8, 8): 80}[shape]
    check_layers(
        Network("lenet", shape),
        *(nn.Conv2d(shape[0], 10, 5, padding=padding), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Conv2d(10, 20, 5, padding=padding), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(features, 50), nn.ReLU(), nn.Linear(50, 10)),
    )


@pytest.mark.parametrize("name", ["conv3", "cnn"])
@pytest.mark.parametrize("shape, padding", [((1, 28, 28), 0), ((3, 32, 32), 0), ((1, 8, 8), 1)])
def test_conv3_is_three_convolutions_a_pool_and_a_linear_layer(name, shape, padding):
    check_layers(
        Network(name, shape),
        *(nn.Conv2d(shape[0], 32, 3, 2, padding), nn.ReLU(), nn.Conv2d(32, 32, 3, 2, padding), nn.ReLU()),
        *(nn.Conv2d(32, 32, 3, 1, padding), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten()),
        nn.Linear(32 if shape == (1, 8, 8) else 128, 10),
    )


@pytest.mark.parametrize("shape, pools, left", [((1, 28, 28), 4, 1), ((3, 84, 84), 4, 25), ((1, 8, 8), 3, 1)])
def test_conv4_is_four_blocks_and_a_linear_layer(shape, pools, left):
    """In the order of theta: the convolutions, then the batch norms, then the linear layer."""
    network = Network("conv4", shape, classes=5, filters=6)
    theta = network.theta() + 0.1 * torch.randn(network.theta().shape, generator=torch.Generator().manual_seed(3))
    convolutions = [nn.Conv2d(shape[0] if block == 0 else 6, 6, 3, padding=1) for block in range(4)]
    norms = [nn.BatchNorm2d(6, eps=1e-3, track_running_stats=False) for _ in range(4)]
    output = nn.Linear(6 * left, 5)
    ordered = nn.ModuleList([*convolutions, *norms, output]).double()
    nn.utils.vector_to_parameters(theta, ordered.parameters())
    x = network.x[0]
    for block in range(4):
        x = norms[block](convolutions[block](x)).relu()
        x = nn.MaxPool2d(2)(x) if block < pools else x
    torch.testing.assert_close(network.logits(theta, network.x[0]), output(x.flatten(1)), rtol=1e-8, atol=1e-8)


def check_layers(network, *layers):
    """The network computes what these layers do with the same theta."""
    reference = nn.Sequential(*layers).double()
    nn.utils.vector_to_parameters(network.theta(), reference.parameters())
    torch.testing.assert_close(network.logits(network.theta(), network.x[0]), reference(network.x[0]))


def test_hidden_layers_follow_the_setting():
    assert count("mlp", (1, 8, 8), hidden=(16, 8)) == 64 * 16 + 16 + 16 * 8 + 8 + 8 * 10 + 10
    assert count("mlp", (1, 8, 8), hidden=()) == 650


@pytest.mark.parametrize("name", OPTIMIZEES.names())
def test_init_defaults_to_normal_for_the_small_mlps_only(name):
    default = {item.name: item.default for item in schema_of(OPTIMIZEES[name])}["init"]
    of_transformers = "gpt2" if name in ("gpt", "vit") else "uniform"
    assert default == ("normal" if name in ("mlp", "mlp-relu", "mlp-tanh", "mlp-gelu") else of_transformers)


def test_normal_init_has_the_stated_deviation_for_weights_and_biases():
    network = Network("mlp", (1, 28, 28), hidden=(100,))
    theta = network.theta()
    assert abs(theta.std() - 0.01) < 2e-4 and abs(theta.mean()) < 2e-4
    assert theta[784 * 100 : 784 * 100 + 100].std() > 0.005  # biases too


def test_uniform_init_reaches_one_over_the_root_of_fan_in():
    network = Network("lenet", (1, 28, 28))
    theta, start = network.theta(), 0
    fan_in = {"first": 25, "second": 250, "hidden": 320, "output": 50}
    for name, parameter in network.module.named_parameters():
        values, start = theta[start : start + parameter.numel()], start + parameter.numel()
        bound = 1 / math.sqrt(fan_in[name.split(".")[0]])
        assert values.abs().max() <= bound
        if parameter.numel() > 100:
            assert abs(values.std() - bound / math.sqrt(3)) < 0.1 * bound and values.abs().max() > 0.95 * bound


@pytest.mark.parametrize("init", ["normal", "uniform"])
def test_resnet_starts_with_norm_scales_one_and_shifts_zero(init):
    optimizee = ResNet18(init=init)
    with torch.device("meta"):
        module = optimizee.build((3, 32, 32), 10)
    theta = optimizee.init_theta(module, torch.Generator().manual_seed(0))
    pieces = dict(
        zip(dict(module.named_parameters()), theta.split([p.numel() for p in module.parameters()]), strict=True)
    )
    norms = [name for name, layer in module.named_modules() if isinstance(layer, nn.BatchNorm2d)]
    assert len(norms) == 20
    assert all((pieces[f"{name}.weight"] == 1).all() and (pieces[f"{name}.bias"] == 0).all() for name in norms)
    expected = 0.01 if init == "normal" else math.sqrt(2 / (512 * 9))
    assert abs(pieces["blocks.7.second.weight"].std() / expected - 1) < 0.01


@pytest.mark.parametrize("name", FOR_IMAGES)
def test_init_depends_on_the_generator_alone(name):
    optimizee = OPTIMIZEES.create(name)
    module = optimizee.build((1, 8, 8), 10)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = optimizee.init_theta(module, torch.Generator().manual_seed(5))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, optimizee.init_theta(module, torch.Generator().manual_seed(5)))
    assert not torch.equal(first, optimizee.init_theta(module, torch.Generator().manual_seed(6)))


def test_dropout_scales_what_it_keeps_and_needs_noise():
    x = torch.ones(2, 4)
    noise = torch.tensor([[0.1, 0.3, 0.2499, 0.9], [0.25, 0.0, 0.5, 0.7]])
    expected = torch.tensor([[0, 1, 0, 1], [1, 0, 1, 1]]) / 0.75
    torch.testing.assert_close(dropped(x, noise, 0.25), expected)
    assert dropped(x, None, 0.25) is x and dropped(x, noise[:, :0], 0.25) is x and dropped(x, noise, 0.0) is x


def test_lenet_drops_out_by_its_noise_and_is_whole_without():
    network = Network("lenet", (1, 28, 28), dropout=0.5)
    theta, x = network.theta(), network.x[0]
    assert network.optimizee.noise_size == 50 and OPTIMIZEES.create("lenet").noise_size == 0
    noise = torch.rand(EXAMPLES, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole = network.logits(theta, x)
    torch.testing.assert_close(whole, Network("lenet", (1, 28, 28)).logits(theta, x))
    assert torch.equal(network.logits(theta, x, noise), network.logits(theta, x, noise))
    assert not torch.allclose(network.logits(theta, x, noise), whole)
    bias = theta[-10:]
    torch.testing.assert_close(network.logits(theta, x, torch.zeros_like(noise)), bias.expand(EXAMPLES, 10))


def test_resnets_batch_norm_is_torchs():
    ours, torchs = batch_norm(3).double(), nn.BatchNorm2d(3, track_running_stats=False).double()
    write_out_norms(ours)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 3, 5, 5, dtype=torch.float64, generator=generator)
    for parameter, other in zip(ours.parameters(), torchs.parameters(), strict=True):
        values = torch.randn(3, dtype=torch.float64, generator=generator)
        parameter.data, other.data = values, values
    torch.testing.assert_close(ours(x), torchs(x), rtol=1e-12, atol=1e-12)


def test_batch_norm_has_second_derivatives_side_by_side():
    """Hessian-vector products under vmap, as GAM takes them of several ResNets at once."""
    norm = batch_norm(2).double()
    write_out_norms(norm)
    x = torch.randn(3, 2, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def loss(theta):
        return (torch.func.functional_call(norm, {"weight": theta[:2], "bias": theta[2:]}, (x * theta[0],)) ** 3).sum()

    theta = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    products = torch.vmap(lambda point: grad_and_hvp(loss, point, torch.ones_like(point))[1])(theta)
    for point, product in zip(theta, products, strict=True):
        torch.testing.assert_close(product, torch.func.hessian(loss)(point).sum(1), rtol=1e-9, atol=1e-9)
