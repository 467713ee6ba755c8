"""A stand-in for the `tensorrt` module: records what is asked of it and answers as TensorRT would; computes nothing."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any


class Logger:
    def __init__(self) -> None:
        pass


class Network:
    num_inputs = 1

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def get_input(self, index: int) -> Any:
        return types.SimpleNamespace(name="x", shape=self.shape)


class Config:
    def __init__(self) -> None:
        self.flags: list[str] = []
        self.profiles: list[Any] = []
        self.cache: tuple[Any, bool] | None = None

    def set_flag(self, flag: str) -> None:
        self.flags.append(flag)

    def add_optimization_profile(self, profile: Any) -> None:
        self.profiles.append(profile)

    def create_timing_cache(self, data: bytes) -> Any:
        return types.SimpleNamespace(data=data, serialize=lambda: data + b"+")

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> None:
        self.cache = (cache, ignore_mismatch)


def make(
    *,
    errors: tuple[str, ...] = (),
    builds: bool = True,
    log: str = "",
    strongly_typed: bool = True,
    shape: tuple[int, ...] = (-1, 3),
) -> Any:
    """`errors`: of the parser; `strongly_typed`: whether the flag exists, as in TensorRT 10; `shape`: of the input."""
    done = types.SimpleNamespace(configs=[], files=[], creations=[])

    class Builder:
        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def create_network(self, flags: int) -> Network:
            done.creations.append(flags)
            return Network(shape)

        def create_builder_config(self) -> Config:
            done.configs.append(Config())
            return done.configs[-1]  # type: ignore[no-any-return]

        def create_optimization_profile(self) -> Any:
            shapes: dict[str, Any] = {}
            return types.SimpleNamespace(shapes=shapes, set_shape=lambda name, *three: shapes.update({name: three}))

        def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
            for line in log.splitlines():
                self.logger.log("Severity.INFO", line)
            self.logger.log("Severity.INTERNAL_ERROR" if not builds else "Severity.VERBOSE", "the end")
            return b"plan" if builds else None

    class Parser:
        num_errors = len(errors)

        def __init__(self, network: Any, logger: Any) -> None:
            pass

        def parse_from_file(self, path: str) -> bool:
            done.files.append(Path(path).name)
            return not errors

        def get_error(self, index: int) -> str:
            return errors[index]

    layers = '{"Layers": [{"Name": "m", "TacticName": "spgemm"}]}'
    inspector = types.SimpleNamespace(get_engine_information=lambda form: layers)
    engine = types.SimpleNamespace(create_engine_inspector=lambda: inspector)
    creation = types.SimpleNamespace(STRONGLY_TYPED=1) if strongly_typed else types.SimpleNamespace()
    return types.SimpleNamespace(
        __version__="10.13.0",
        done=done,
        ILogger=Logger,
        Builder=Builder,
        OnnxParser=Parser,
        Runtime=lambda logger: types.SimpleNamespace(deserialize_cuda_engine=lambda plan: engine),
        NetworkDefinitionCreationFlag=creation,
        ProfilingVerbosity=types.SimpleNamespace(DETAILED="detailed"),
        BuilderFlag=types.SimpleNamespace(SPARSE_WEIGHTS="sparse"),
        LayerInformationFormat=types.SimpleNamespace(JSON="json"),
    )
