from __future__ import annotations

from stream.doctor import exit_code
from stream.doctor_extras import check_extras


def test_libraries_of_optional_commands_are_told_with_their_versions() -> None:
    page, ray, measures = check_extras(lambda name: "1.2")
    assert (page.status, page.detail) == ("ok", "fastapi 1.2, uvicorn 1.2, prometheus_client 1.2")
    assert (ray.name, ray.detail) == ("Ray", "ray 1.2, fsspec 1.2")
    assert measures.detail == "torch 1.2, torchmetrics 1.2, pycocotools 1.2"


def test_what_is_missing_is_named_with_its_extra_and_prevents_nothing() -> None:
    lacking = {"uvicorn", "ray", "torchmetrics", "pycocotools"}
    checks = check_extras(lambda name: None if name in lacking else "1.2")
    assert [check.detail for check in checks] == [
        "uvicorn not installed",
        "ray not installed",
        "torchmetrics, pycocotools not installed",
    ]
    assert [check.todo for check in checks] == [
        'only for the status page of standin serve: pip install "standin[serve]"',
        'only for standin batch: pip install "standin[batch]"',
        'only for standin evaluate: pip install "standin[evaluate]"',
    ]
    assert exit_code(checks) == 0
