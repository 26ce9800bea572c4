"""The key, the bucket, the tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stream_app.local.deployers.dependencies import Applied, Deployment, Properties, applied, attempt, text
from stream_app.local.deployers.identity import Attributes
from stream_app.local.deployers.intrinsics import wrong

_RULE = {
    "AbortIncompleteMultipartUpload",
    "ExpirationInDays",
    "ExpiredObjectDeleteMarker",
    "Id",
    "NoncurrentVersionExpiration",
    "Prefix",
    "Status",
    "TagFilters",
}


def key(deployment: Deployment, properties: Properties, attributes: Attributes) -> Attributes:
    """Make the key, or find the one of the same description: a key has no name of its own."""
    kms = deployment.clients("kms")
    description = properties.get("Description", attributes["Name"])
    ids = [k["KeyId"] for page in kms.get_paginator("list_keys").paginate() for k in page["Keys"]]
    known = [kms.describe_key(KeyId=name)["KeyMetadata"] for name in ids]
    same = [k for k in known if k.get("Description") == description and k.get("KeyState") == "Enabled"]
    made = same[0] if same else kms.create_key(Description=description)["KeyMetadata"]
    if "KeyPolicy" in properties:
        kms.put_key_policy(KeyId=made["KeyId"], PolicyName="default", Policy=text(properties["KeyPolicy"]))
    if properties.get("EnableKeyRotation"):
        kms.enable_key_rotation(KeyId=made["KeyId"])
    return {**attributes, "Ref": made["KeyId"], "KeyId": made["KeyId"], "Arn": made["Arn"]}


def alias(deployment: Deployment, properties: Properties, attributes: Attributes) -> Attributes:
    """Point the alias at its key."""
    kms, name, target = deployment.clients("kms"), properties["AliasName"], properties["TargetKeyId"]
    there = [a["AliasName"] for page in kms.get_paginator("list_aliases").paginate() for a in page["Aliases"]]
    set_alias = kms.update_alias if name in there else kms.create_alias
    set_alias(AliasName=name, TargetKeyId=target)
    return {**attributes, "Ref": name}


def bucket(deployment: Deployment, properties: Properties, attributes: Attributes) -> Attributes:
    """Make the bucket where it is missing, then set everything that the template says of it."""
    s3, name = deployment.clients("s3"), attributes["Name"]
    if attempt(("404", "NoSuchBucket"), s3.head_bucket, Bucket=name) is None:
        region = s3.meta.region_name
        place = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        s3.create_bucket(Bucket=name, **place)
    if "VersioningConfiguration" in properties:
        s3.put_bucket_versioning(
            Bucket=name, VersioningConfiguration={"Status": properties["VersioningConfiguration"]["Status"]}
        )
    if "BucketEncryption" in properties:
        s3.put_bucket_encryption(
            Bucket=name, ServerSideEncryptionConfiguration=_encryption(properties["BucketEncryption"])
        )
    if "PublicAccessBlockConfiguration" in properties:
        blocks = properties["PublicAccessBlockConfiguration"]
        s3.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=blocks)
    if "OwnershipControls" in properties:
        s3.put_bucket_ownership_controls(Bucket=name, OwnershipControls=properties["OwnershipControls"])
    if "LifecycleConfiguration" in properties:
        rules = [lifecycle_rule(rule) for rule in properties["LifecycleConfiguration"]["Rules"]]
        s3.put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration={"Rules": rules})
    return attributes


def _encryption(properties: Properties) -> dict[str, Any]:
    rules = []
    for rule in properties["ServerSideEncryptionConfiguration"]:
        default = rule["ServerSideEncryptionByDefault"]
        by = {"SSEAlgorithm": default["SSEAlgorithm"]}
        if "KMSMasterKeyID" in default:
            by["KMSMasterKeyID"] = default["KMSMasterKeyID"]
        rules.append(
            {
                "ApplyServerSideEncryptionByDefault": by,
                "BucketKeyEnabled": rule.get("BucketKeyEnabled", False),
            }
        )
    return {"Rules": rules}


def lifecycle_rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    """A lifecycle rule of a template in the words of S3. Raises ConfigError for a property not known here."""
    unknown = sorted(set(rule) - _RULE)
    if unknown:
        raise wrong(f"lifecycle rule {rule.get('Id')} has {', '.join(unknown)}", "teach lifecycle_rule of it")
    made: dict[str, Any] = {"Status": rule["Status"], "Filter": _filter(rule)}
    if "Id" in rule:
        made["ID"] = rule["Id"]
    if "ExpirationInDays" in rule:
        made["Expiration"] = {"Days": rule["ExpirationInDays"]}
    if "ExpiredObjectDeleteMarker" in rule:
        made["Expiration"] = {"ExpiredObjectDeleteMarker": rule["ExpiredObjectDeleteMarker"]}
    for same in ("NoncurrentVersionExpiration", "AbortIncompleteMultipartUpload"):
        if same in rule:
            made[same] = rule[same]
    return made


def _filter(rule: Mapping[str, Any]) -> dict[str, Any]:
    tags, prefix = list(rule.get("TagFilters", ())), rule.get("Prefix")
    if len(tags) + (prefix is not None) > 1:
        return {"And": {"Tags": tags, **({} if prefix is None else {"Prefix": prefix})}}
    return {"Tag": tags[0]} if tags else {"Prefix": prefix or ""}


def table(deployment: Deployment, properties: Properties, attributes: Attributes) -> Attributes:
    """Make the table where it is missing; then its time to live and its recovery."""
    dynamodb, name = deployment.clients("dynamodb"), attributes["Name"]
    if attempt(("ResourceNotFoundException",), dynamodb.describe_table, TableName=name) is None:
        dynamodb.create_table(TableName=name, **_table(properties))
        dynamodb.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1})
    if "PointInTimeRecoverySpecification" in properties:
        dynamodb.update_continuous_backups(
            TableName=name, PointInTimeRecoverySpecification=properties["PointInTimeRecoverySpecification"]
        )
    if "TimeToLiveSpecification" in properties:
        now = dynamodb.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
        if now["TimeToLiveStatus"] in ("DISABLED", "DISABLING"):
            dynamodb.update_time_to_live(
                TableName=name, TimeToLiveSpecification=properties["TimeToLiveSpecification"]
            )
    return attributes


def _table(properties: Properties) -> dict[str, Any]:
    made = {n: properties[n] for n in ("AttributeDefinitions", "BillingMode", "KeySchema") if n in properties}
    if "SSESpecification" in properties:
        sse = properties["SSESpecification"]
        made["SSESpecification"] = {
            "Enabled": sse["SSEEnabled"],
            **{n: sse[n] for n in ("SSEType", "KMSMasterKeyId") if n in sse},
        }
    return made


APPLIED: dict[str, Applied] = {
    "AWS::KMS::Key": applied(key, "Description", "EnableKeyRotation", "KeyPolicy"),
    "AWS::KMS::Alias": applied(alias, "AliasName", "TargetKeyId"),
    "AWS::S3::Bucket": applied(
        bucket,
        "BucketEncryption",
        "BucketName",
        "LifecycleConfiguration",
        "OwnershipControls",
        "PublicAccessBlockConfiguration",
        "VersioningConfiguration",
    ),
    "AWS::DynamoDB::Table": applied(
        table,
        "AttributeDefinitions",
        "BillingMode",
        "KeySchema",
        "PointInTimeRecoverySpecification",
        "SSESpecification",
        "TableName",
        "TimeToLiveSpecification",
    ),
}
