"""Locating Java and the JAR files, and the Java command line, which every Java from 17 accepts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stream_app.daemon import java
from stream_app.errors import ConfigError


def make_java(home: Path, mode: int = 0o755) -> Path:
    program = home / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.touch()
    program.chmod(mode)
    return program


def test_java_home_takes_precedence(tmp_path: Path) -> None:
    own, bundled = make_java(tmp_path / "own"), make_java(tmp_path / "bundled")
    assert java.find_java({"JAVA_HOME": str(tmp_path / "own")}, lambda: bundled) == own


@pytest.mark.parametrize("home", [None, "", "nowhere"])
def test_without_a_usable_java_home_the_bundled_java_is_used(home: str | None, tmp_path: Path) -> None:
    bundled = make_java(tmp_path / "bundled")
    environ = {} if home is None else {"JAVA_HOME": home and str(tmp_path / home)}
    assert java.find_java(environ, lambda: bundled) == bundled


def test_a_missing_java_is_reported_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as missing:
        java.find_java({"JAVA_HOME": str(tmp_path)}, lambda: None)
    (problem,) = missing.value.problems
    assert str(tmp_path) in problem.what
    assert "JAVA_HOME" in problem.hint


def test_the_installed_packages_contain_all_jar_files() -> None:
    bundled = java.bundled_java()
    assert bundled is not None
    assert bundled.is_file()
    assert list(java.jars().glob("amazon-kinesis-client-3.*.jar"))


def test_a_package_without_jar_files_is_reported() -> None:
    for package in ("stream_app", "no_such_package"):
        with pytest.raises(ConfigError, match="jars"):
            java.jars(package)


def test_the_command_contains_options_main_class_and_properties_file() -> None:
    line = java.command(Path("/j/java"), Path("/p/f.properties"), heap="256m", cbor=False, debug=False)
    assert line[:2] == ["/j/java", "-Xmx256m"]
    assert line[-3:] == [java.DAEMON, "--properties-file", "/p/f.properties"]
    assert "-Daws.cborEnabled=false" in line
    assert java.LOGBACK.is_file()
    classpath = line[line.index("-cp") + 1].split(os.pathsep)
    assert classpath == [str(java.jars() / "*"), str(java.CLASSES)]


def test_the_jaxb_class_that_kcl_needs_supports_java_11_and_later() -> None:
    found = (java.CLASSES / "javax" / "xml" / "bind" / "DatatypeConverter.class").read_bytes()
    assert found[:4] == b"\xca\xfe\xba\xbe"
    assert int.from_bytes(found[6:8], "big") == 55  # the class file version of Java 11
    assert b"printBase64Binary" in found
