"""torch.nn.Module → Source: names, modes, shapes, and what is said when it does not work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunec.diagnostics import PrunecError
from prunec.frontend.torch_extra import is_module, require_torch

torch = pytest.importorskip("torch", reason="needs the [torch] extra")
nn = torch.nn
pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("one_registry")]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 6, 3)
        self.head = nn.Linear(6, 5)

    def forward(self, image: Any) -> Any:
        x = self.second(torch.relu(self.norm(self.first(image))))
        return self.head(nn.functional.dropout(x.mean((2, 3)), 0.5, self.training))


def net(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    module = Net()
    module.norm.running_mean.normal_()
    module.norm.running_var.uniform_(0.5, 2)
    return module


def load(module: Any, examples: Any = None, **options: Any) -> Any:
    from prunec.frontend.torch import load_module

    return load_module(module, torch.zeros(2, 3, 8, 8) if examples is None else examples, **options)


@pytest.fixture(scope="module")
def source() -> Any:
    return load(net())


def run(model: Any, **feeds: Any) -> Any:
    from prunec.backends.onnx.session import make_session
    from prunec.backends.onnx.session import run as run_session

    return next(iter(run_session(make_session(model), feeds).values()))


def test_parameters_keep_their_names_and_values(source: Any) -> None:
    module = net()
    found = source.model.graph.initializers
    for name, tensor in module.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert np.array_equal(found[name].const_value.numpy(), tensor.numpy()), name
    assert [value.name for value in source.model.graph.inputs] == ["image"]
    assert source.path == Path("Net.onnx")
    assert not source.is_file


def test_the_numbers_are_those_of_evaluation_mode_and_modes_come_back() -> None:
    module = net()
    module.train()
    module.norm.eval()
    x = torch.randn(2, 3, 8, 8)
    found = run(load(module, x).model, image=x.numpy())
    assert [name for name, part in module.named_modules() if not part.training] == ["norm"]
    assert np.allclose(found, module.eval()(x).detach().numpy(), atol=1e-6)


def test_modes_come_back_after_a_failure() -> None:
    class Broken(nn.Module):
        def forward(self, x: Any) -> Any:
            raise KeyError("no such thing")

    module = Broken().train()
    with pytest.raises(PrunecError, match="PC032"):
        load(module)
    assert module.training


def test_the_hash_is_of_graph_and_weights(source: Any) -> None:
    assert load(net()).sha256 == source.sha256
    assert load(net(1)).sha256 != source.sha256


def test_training_on_does_not_change_what_was_read() -> None:
    module = net()
    found = load(module).model.graph.initializers["first.weight"].const_value.numpy()
    before = found.copy()
    with torch.no_grad():
        module.first.weight.zero_()
    assert np.array_equal(found, before)


def test_nothing_of_the_machine_is_in_the_graph(source: Any) -> None:
    import onnx_ir as ir

    text = str(ir.to_proto(source.model))
    assert "stack_trace" not in text and __file__ not in text and "site-packages" not in text


def test_dynamic_shapes_and_keyword_arguments() -> None:
    found = load(net(), {"image": torch.zeros(2, 3, 8, 8)}, dynamic_shapes={"image": {0: torch.export.Dim("n")}})
    (image,) = found.model.graph.inputs
    assert not isinstance(image.shape[0], int)
    assert list(image.shape)[1:] == [3, 8, 8]
    for batch in (1, 5):
        assert run(found.model, image=np.zeros((batch, 3, 8, 8), np.float32)).shape == (batch, 5)


def test_input_shapes_make_dynamic_axes_static() -> None:
    shapes = {"image": {0: torch.export.Dim("n")}}
    found = load(net(), dynamic_shapes=shapes, input_shapes={"image": [4, 3, 8, 8]})
    assert list(found.model.graph.inputs[0].shape) == [4, 3, 8, 8]


@pytest.mark.parametrize("examples", [None, (), 3, "x", {"image": 1}])
def test_without_a_tensor_there_is_nothing_to_trace(examples: Any) -> None:
    from prunec.frontend.torch import load_module

    with pytest.raises(PrunecError, match="PC031"):
        load_module(net(), examples)


class Branches(nn.Module):
    def forward(self, x: Any) -> Any:
        if x.sum() > 0:
            return x
        return 2 * x


class Numpy(nn.Module):
    def forward(self, x: Any) -> Any:
        return torch.from_numpy(x.numpy())


class Wrong(nn.Module):
    def forward(self, x: Any) -> Any:
        return x.reshape(7, 7)


@pytest.mark.parametrize(
    ("module", "code", "hint"),
    [
        (Branches(), "if x.sum() > 0:", "torch.where"),
        (Numpy(), "torch.from_numpy(x.numpy())", "numpy"),
        (Wrong(), "x.reshape(7, 7)", "module(*example_inputs)"),
    ],
)
def test_what_cannot_be_traced_names_the_users_line(module: Any, code: str, hint: str) -> None:
    with pytest.raises(PrunecError) as caught:
        load(module)
    found = caught.value.diagnostic
    assert found.code == "PC032"
    assert Path(__file__).name in str(found.where) and code in str(found.where)
    assert hint in str(found.hint)
    assert "\n" not in found.message


def test_what_onnx_does_not_have_is_named() -> None:
    class Decompose(nn.Module):
        def forward(self, x: Any) -> Any:
            return torch.linalg.svd(x)[1]

    with pytest.raises(PrunecError) as caught:
        load(Decompose())
    assert caught.value.diagnostic.code == "PC033"
    assert "linalg_svd" in str(caught.value)


def test_nan_weights_are_refused_as_in_a_file() -> None:
    module = net()
    with torch.no_grad():
        module.second.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(PrunecError, match=r"PC012.*second\.weight"):
        load(module)


def test_a_module_is_recognised() -> None:
    assert is_module(net())
    assert not any(is_module(other) for other in ("x.onnx", Path("x"), b"x", 3, None, torch.zeros(1)))


def test_without_torch_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PrunecError) as caught:
        require_torch("a torch.nn.Module")
    assert caught.value.diagnostic.code == "PC030"
    assert "prunec[torch]" in str(caught.value.diagnostic.hint)


def test_looking_at_a_path_does_not_import_torch(root: Path) -> None:
    script = "import sys; from prunec.frontend.torch_extra import is_module; is_module('a'); is_module(object())"
    done = subprocess.run(
        [sys.executable, "-c", f"{script}; print('torch' in sys.modules)"], cwd=root, capture_output=True, text=True
    )
    assert done.stdout.strip() == "False", done.stderr
