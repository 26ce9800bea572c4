"""The launcher end to end, with a small program in place of Java."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from stream_app.daemon.launcher import LaunchOptions, run_daemon
from stream_app.daemon.log import json_lines
from stream_app.daemon.supervisor import Restarts, Stop
from stream_app.errors import ConfigError
from stream_app.resources import shipped
from stream_app.settings import ENVIRONMENT, Settings, parse_properties
from stream_app.telemetry.best_effort import BestEffortFile

Line = dict[str, Any]
TWICE = Restarts(limit=1, base_seconds=0)

# Reports its arguments and environment as a line of a child, and exits as the environment says.
JAVA = """#!{python}
import json, os, pathlib, sys
file = sys.argv[sys.argv.index("--properties-file") + 1]
told = json.dumps({{"event": "given", "argv": sys.argv, "environ": dict(os.environ),
                    "text": pathlib.Path(file).read_text(), "mode": os.stat(file).st_mode & 0o777}})
log = "2026-11-20T10:00:00.000Z\\t{{}}\\tt\\t{{}}\\t{{}}"
print(log.format("ERROR", "DrainChildSTDERRTask", f"Received error line from subprocess [{{told}}] for shard s"))
print(told, file=sys.stderr)
failure = os.environ.get("CHILD_FAILS_WITH")
if failure:
    processor = "MultiLangShardRecordProcessor"
    print(log.format("ERROR", processor, "Encountered an error while trying to process records"))
    print(log.format("INFO", processor, "Child process exited with value: " + failure))
sys.exit(int(os.environ.get("ENDS_WITH", "0")))
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    for name, text in (("java", JAVA.format(python=sys.executable)), ("stream-app-consumer", "#!/bin/sh\n")):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(text)
        program.chmod(0o755)
    return {"JAVA_HOME": str(tmp_path), "PATH": str(tmp_path / "bin")}


def run(
    environ: dict[str, str], base: str = "production.properties", **overrides: str | None
) -> tuple[int, list[Line]]:
    seen: list[Line] = []
    properties = shipped("properties") / base
    stop = Stop()
    code = run_daemon(properties, LaunchOptions(environ, overrides, TWICE), on_line=seen.append, stop=stop)
    stop.close()
    return code, seen


def given(seen: list[Line]) -> Line:
    return next(line for line in seen if line["event"] == "given")


def test_overrides_take_precedence_over_the_environment_and_the_file(environ: dict[str, str]) -> None:
    environ |= {"STREAM_APP_STREAM": "from-environment", "STREAM_APP_APPLICATION": "from-environment"}
    code, seen = run(environ, streamName="from-override", initialPositionInStream=None)
    report = given(seen)
    properties = parse_properties(report["text"])
    assert code == 0
    assert (properties["streamName"], properties["applicationName"]) == ("from-override", "from-environment")
    assert "initialPositionInStream" not in properties
    assert properties["workerId"]
    assert report["mode"] == 0o600
    # The application in a child reads the effective values, not the base file or the environment.
    settings = Settings.load(report["environ"], properties)
    assert (settings.stream, settings.application) == ("from-override", "from-environment")


def test_children_find_the_effective_properties_and_the_consumer_program(environ: dict[str, str]) -> None:
    _, seen = run(environ | {"AWS_PROFILE": "p"})
    report = given(seen)
    assert report["environ"][ENVIRONMENT] == report["argv"][-1]
    assert report["environ"]["PATH"].split(os.pathsep) == [str(Path(sys.executable).parent), environ["PATH"]]
    assert report["environ"]["AWS_PROFILE"] == "p"
    assert not Path(report["argv"][-1]).exists(), "the effective file is deleted when the daemon ends"


@pytest.mark.parametrize(
    ("endpoint", "flag"), [(None, "true"), ("https://kinesis.x", "true"), ("http://127.0.0.1:1", "false")]
)
def test_cbor_is_disabled_for_an_http_endpoint(
    environ: dict[str, str], endpoint: str | None, flag: str
) -> None:
    _, seen = run(environ, kinesisEndpoint=endpoint)
    assert f"-Daws.cborEnabled={flag}" in given(seen)["argv"]


def test_the_launcher_logs_its_events(environ: dict[str, str]) -> None:
    code, seen = run(environ | {"ENDS_WITH": "3"})
    events = [(line["event"], line.get("code")) for line in seen if line["source"] == "launcher"]
    assert code == 1
    assert events == [
        ("launcher_started", None),
        ("daemon_started", None),
        ("daemon_restarting", 3),
        ("daemon_started", None),
        ("daemon_gave_up", 3),
        ("launcher_ended", 1),
    ]
    assert all({"ts", "level"} <= line.keys() for line in seen)


def test_max_records_is_reduced_after_an_out_of_memory_exit(environ: dict[str, str]) -> None:
    _, seen = run(environ | {"ENDS_WITH": "3", "STREAM_APP_JAVA_HEAP": "600m"})
    texts = [parse_properties(line["text"]) for line in seen if line["event"] == "given"]
    assert [text["maxRecords"] for text in texts] == ["10000", "1250"]
    assert {name: value for name, value in texts[0].items() if texts[1][name] != value} == {
        "maxRecords": "10000"
    }
    assert [line["mode"] for line in seen if line["event"] == "given"] == [0o600] * 2
    assert [line["max_records"] for line in seen if line["event"] == "out_of_memory"] == [1250, 156]
    _, seen = run(environ | {"ENDS_WITH": "1"})
    texts = [parse_properties(line["text"]) for line in seen if line["event"] == "given"]
    assert [text["maxRecords"] for text in texts] == ["10000", "10000"]


def test_the_heap_size_of_the_environment_overrides_the_properties(environ: dict[str, str]) -> None:
    heap = {"app.java_heap": "700m"}
    assert "-Xmx700m" in given(run(environ, **heap)[1])["argv"]
    assert "-Xmx1g" in given(run(environ | {"STREAM_APP_JAVA_HEAP": "1g"}, **heap)[1])["argv"]
    (started,) = [line for line in run(environ, **heap)[1] if line["event"] == "launcher_started"]
    assert (started["heap"], started["max_records"]) == ("700m", 10_000)


@pytest.mark.parametrize("log", ["/dev/full", "no reader"])
def test_an_unwritable_log_does_not_stop_the_daemon(environ: dict[str, str], log: str) -> None:
    if log == "no reader":
        reading, fd = os.pipe()
        os.close(reading)
    else:
        fd = os.open(log, os.O_WRONLY)
    file, stop = BestEffortFile(fd), Stop()
    properties = shipped("properties") / "production.properties"
    code = run_daemon(
        properties, LaunchOptions(environ, restarts=TWICE), on_line=json_lines(file, "DEBUG"), stop=stop
    )
    stop.close()
    os.close(fd)
    assert code == 0
    assert file.lost >= 4


def test_a_configuration_error_in_a_child_is_not_retried(environ: dict[str, str]) -> None:
    code, seen = run(environ | {"ENDS_WITH": "1", "CHILD_FAILS_WITH": "2"})
    assert code == 2
    assert [line["event"] for line in seen].count("daemon_started") == 1


def test_all_problems_are_reported_together_before_the_daemon_starts(environ: dict[str, str]) -> None:
    environ |= {"STREAM_APP_JAVA_HEAP": "much"}
    with pytest.raises(ConfigError) as error:
        run(environ, executableName="no-such-program", timeoutInSeconds=None, dbPassword="hush")
    what = [problem.what for problem in error.value.problems]
    for part in ("no-such-program", "timeoutInSeconds", "dbPassword", "STREAM_APP_JAVA_HEAP"):
        assert [text for text in what if part in text], part
    assert "hush" not in json.dumps(what)


def test_a_missing_properties_file_is_a_config_error(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"none\.properties"):
        run(environ, base="none.properties")
