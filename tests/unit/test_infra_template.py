"""Templates are read like CloudFormation: functions, conditions, nested stacks and dependencies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.errors import ConfigError
from stream_app.local.deployers.deploy import LOCAL_PARAMETERS, templates
from stream_app.local.deployers.intrinsics import PseudoParameters, Stack, evaluate
from stream_app.local.deployers.template import Template, read

WORLD = PseudoParameters("123456789012", "eu-west-1", "http://queues")
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(min_size=1).map(lambda k: f"k{k}"), inner),
)


def physical(name: str, attribute: str) -> str:
    return f"<{name}.{attribute}>"


def stack(body: dict[str, Any] | None = None, **arguments: Any) -> Stack:
    return Stack("", body or {}, arguments, WORLD)


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder / "parent.yaml"


def ours() -> Template:
    return read(templates()[0], WORLD, LOCAL_PARAMETERS)


@given(PLAIN)
def test_values_without_functions_are_unchanged(value: Any) -> None:
    assert evaluate(value, stack(), physical) == value


@given(st.lists(st.text(alphabet="abc:/-", min_size=1)), st.sampled_from([",", "::", ""]))
def test_sub_and_join_are_equivalent(words: list[str], glue: str) -> None:
    named = {f"w{n}": word for n, word in enumerate(words)}
    pattern = glue.join(f"${{{name}}}" for name in named)
    by_sub = evaluate({"Fn::Sub": [pattern, named]}, stack(), physical)
    assert by_sub == evaluate({"Fn::Join": [glue, words]}, stack(), physical) == glue.join(words)


@given(st.lists(st.text(alphabet="abc", min_size=1), min_size=1), st.data())
def test_select_and_split_invert_join(words: list[str], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(words) - 1))
    joined = {"Fn::Join": [",", words]}
    assert evaluate({"Fn::Select": [place, {"Fn::Split": [",", joined]}]}, stack(), physical) == words[place]


@given(st.booleans(), st.booleans())
def test_conditions_are_evaluated(left: bool, right: bool) -> None:
    body = {
        "Parameters": {"L": {"Type": "String"}, "R": {"Type": "String"}},
        "Conditions": {
            "HasL": {"Fn::Equals": [{"Ref": "L"}, "True"]},
            "HasR": {"Fn::Not": [{"Fn::Equals": [{"Ref": "R"}, "False"]}]},
            "Both": {"Fn::And": [{"Condition": "HasL"}, {"Condition": "HasR"}]},
            "One": {"Fn::Or": [{"Condition": "HasL"}, {"Condition": "HasR"}]},
        },
    }
    where = stack(body, L=str(left), R=str(right))
    assert evaluate({"Fn::If": ["Both", 1, 2]}, where, physical) == (1 if left and right else 2)
    assert evaluate({"Fn::If": ["One", 1, 2]}, where, physical) == (1 if left or right else 2)


def test_no_value_removes_the_item() -> None:
    nothing = {"Ref": "AWS::NoValue"}
    assert evaluate({"a": nothing, "b": [1, nothing]}, stack(), physical) == {"b": [1]}


def test_an_escaped_variable_is_kept() -> None:
    assert evaluate({"Fn::Sub": "${!Literal} ${AWS::Region}"}, stack(), physical) == "${Literal} eu-west-1"


def test_a_condition_of_a_policy_is_not_a_function() -> None:
    lone = {"Condition": {"Bool": {"aws:SecureTransport": "false"}}}
    assert evaluate(lone, stack(), physical) == lone


def test_dates_are_strings_and_short_tags_are_functions(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        parent="""
Resources:
  Queue: {Type: T, Properties: {Version: 2012-10-17, Name: !Sub "a-${AWS::Region}", Of: !GetAtt Topic.Arn.Deep}}
  Topic: {Type: T}
""",
    )
    resource = read(path, WORLD, {}).resources["Queue"]
    assert evaluate(resource.properties, resource.stack, physical) == {
        "Version": "2012-10-17",
        "Name": "a-eu-west-1",
        "Of": "<Topic.Arn.Deep>",
    }


def test_parameters_and_outputs_pass_through_nested_stacks(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        parent="""
Parameters: {Name: {Type: String, Default: x}}
Resources:
  Inner:
    Type: AWS::CloudFormation::Stack
    Properties: {TemplateURL: ./inner.yaml, Parameters: {Given: !Sub "${Name}-${Base}", Count: "7"}}
  Base: {Type: T}
  Last: {Type: T, DependsOn: Inner}
Outputs: {Out: {Value: !GetAtt Inner.Outputs.Made}}
""",
        inner="""
Parameters: {Given: {Type: String}, Count: {Type: Number}}
Resources: {Thing: {Type: T, Properties: {Name: !Ref Given, Count: !Ref Count}}}
Outputs: {Made: {Value: !Join ["/", [!Ref Thing, !Ref Given]]}}
""",
    )
    template = read(path, WORLD, {"Name": "y"})
    assert list(template.resources) == ["Base", "Inner.Thing", "Last"]
    thing = template.resources["Inner.Thing"]
    assert evaluate(thing.properties, thing.stack, physical) == {"Name": "y-<Base.Ref>", "Count": 7}
    assert template.outputs(physical) == {"Out": "<Inner.Thing.Ref>/y-<Base.Ref>"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Resources: {A: {Type: T, Properties: {X: !Ref B}}}", "refers to the unknown resource B"),
        (
            "Resources: {A: {Type: T, Properties: {X: !Ref B}}, B: {Type: T, Properties: {X: !Ref A}}}",
            "circular dependency",
        ),
        ("Resources: {A: {Type: T, Properties: {X: !ImportValue B}}}", "Fn::ImportValue"),
        ("Resources: {A: {Type: T, Condition: Gone}}", "unknown condition Gone"),
        (
            "Resources: {A: {Type: AWS::CloudFormation::Stack, Properties: {TemplateURL: ./no.yaml}}}",
            "no.yaml",
        ),
        ("Parameters: {P: {Type: String}}\nResources: {}", "parameter P has no value"),
        ("Outputs: {}", "declares no Resources"),
        ("Resources: {A: ", "cannot read"),
    ],
)
def test_template_errors_are_reported(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(write(tmp_path, parent=text), WORLD, {})


def test_parameters_are_checked() -> None:
    with pytest.raises(ConfigError) as caught:
        read(templates()[0], WORLD, {**LOCAL_PARAMETERS, "Application": "Not Allowed", "Nothing": 1})
    assert [problem.what for problem in caught.value.problems] == [
        "the template has no parameter Nothing",
        "Application = 'Not Allowed' is not allowed",
    ]


def test_resources_follow_their_dependencies() -> None:
    template, made = ours(), set[str]()

    def deployed(name: str, attribute: str) -> str:
        assert name in made
        return physical(name, attribute)

    for resource in template.resources.values():
        evaluate(resource.properties, resource.stack, deployed)
        made.add(resource.id)
    assert set(template.outputs(deployed)) >= {
        "StreamName",
        "BucketName",
        "DeadLetterQueueUrl",
        "BusName",
        "LatestTableName",
        "HistoryTableName",
        "DevicesQueueUrl",
    }


def test_the_api_pipe_is_optional() -> None:
    without = set(ours().resources)
    more = {**LOCAL_PARAMETERS, "ApiEndpoint": "http://127.0.0.1/x"}
    assert {name.split(".")[0] for name in set(read(templates()[0], WORLD, more).resources) - without} == {
        "Delivery"
    }
