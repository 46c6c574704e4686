from __future__ import annotations

from importlib import metadata

import pytest

from engines.errors import DeviceMissingError, UsageError
from engines.tensorrt_policy import (
    Policy,
    goes_by_plans,
    installed_version,
    parse_policy,
    precision_of,
    provider_problem,
)


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        (None, Policy()),
        ("", Policy()),
        ("build", Policy(build=True)),
        ("tf32, build,host-code", Policy(build=True, tf32=True, host_code=True)),
        ("onnxruntime", Policy(onnxruntime=True)),
    ],
)
def test_words_say_what_may_be_done(text: str | None, policy: Policy) -> None:
    assert parse_policy(text) == policy


@pytest.mark.parametrize(
    ("text", "said"), [("fast", "'fast'"), ("build fast", "'build fast'"), ("onnxruntime,build", "leave out")]
)
def test_words_that_are_not_known_are_usage_errors(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_policy(text)


@pytest.mark.parametrize(
    ("policy", "version", "plans"),
    [
        (Policy(), None, False),
        (Policy(), "10.16.1.11", True),
        (Policy(), "11.4.0.106", True),
        (Policy(onnxruntime=True), "10.16.1.11", False),
        (Policy(onnxruntime=True), None, False),
        (Policy(onnxruntime=True), "unknown", False),
    ],
)
def test_plans_are_the_way_where_tensorrt_is_there(policy: Policy, version: str | None, plans: bool) -> None:
    assert goes_by_plans(policy, version) is plans


@pytest.mark.parametrize("version", ["11.4.0.106", "9.3.0", "8.6.1.post1"])
def test_onnx_runtimes_provider_with_another_tensorrt_is_refused(version: str) -> None:
    with pytest.raises(DeviceMissingError, match=f"needs TensorRT 10, TensorRT {version} is installed; run plans"):
        goes_by_plans(Policy(onnxruntime=True), version)
    assert provider_problem("10.3.0") is None


@pytest.mark.parametrize(
    ("graph", "tf32", "precision"),
    [("generator", False, "fp32"), ("generator", True, "tf32"), ("generator_fp16", True, "fp16")],
)
def test_half_precision_is_in_the_file(graph: str, tf32: bool, precision: str) -> None:
    assert precision_of(graph, Policy(tf32=tf32)) == precision


def test_the_version_is_found_under_any_of_the_packages_names() -> None:
    def version_of(name: str) -> str:
        if name != "tensorrt-cu12":
            raise metadata.PackageNotFoundError(name)
        return "10.3.0"

    assert installed_version(version_of) == "10.3.0"
