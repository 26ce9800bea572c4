"""Deployers for the KMS key and alias, the bucket and the tables."""

from __future__ import annotations

from stream_app.local.deployers.deployer import (
    Deployer,
    Deployment,
    UntypedClient,
    attribute_text,
    deployer,
    get_or_none,
)
from stream_app.local.deployers.intrinsics import Attributes, Properties, TemplateValue, template_error

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
    """Create the key, or find the enabled key with the same description, because a key has no name."""
    kms: UntypedClient = deployment.clients("kms")
    description = properties.get("Description", attributes["Name"])
    ids = [k["KeyId"] for page in kms.get_paginator("list_keys").paginate() for k in page["Keys"]]
    known = [kms.describe_key(KeyId=name)["KeyMetadata"] for name in ids]
    same = [k for k in known if k.get("Description") == description and k.get("KeyState") == "Enabled"]
    metadata = same[0] if same else kms.create_key(Description=description)["KeyMetadata"]
    key_id = metadata["KeyId"]
    if "KeyPolicy" in properties:
        policy = attribute_text(properties["KeyPolicy"])
        kms.put_key_policy(KeyId=key_id, PolicyName="default", Policy=policy)
    if properties.get("EnableKeyRotation"):
        kms.enable_key_rotation(KeyId=key_id)
    return {**attributes, "Ref": key_id, "KeyId": key_id, "Arn": metadata["Arn"]}


def alias(deployment: Deployment, properties: Properties, attributes: Attributes) -> Attributes:
    """Create the alias, or update its target key."""
    kms: UntypedClient = deployment.clients("kms")
    name, target = properties["AliasName"], properties["TargetKeyId"]
    pages = kms.get_paginator("list_aliases").paginate()
    existing = [alias["AliasName"] for page in pages for alias in page["Aliases"]]
    set_alias = kms.update_alias if name in existing else kms.create_alias
    set_alias(AliasName=name, TargetKeyId=target)
    return {**attributes, "Ref": name}


def bucket(deployment: Deployment, properties: Properties, attributes: Attributes) -> Attributes:
    """Create the bucket if it does not exist, then apply the template's settings."""
    s3, name = deployment.clients("s3"), attributes["Name"]
    if get_or_none(("404", "NoSuchBucket"), s3.head_bucket, Bucket=name) is None:
        s3.create_bucket(Bucket=name, **_location(s3.meta.region_name))
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


def _location(region: str) -> dict[str, TemplateValue]:
    # CreateBucket rejects us-east-1 as an explicit location constraint.
    return {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}


def _encryption(properties: Properties) -> TemplateValue:
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


def lifecycle_rule(rule: Properties) -> TemplateValue:
    """Convert a lifecycle rule from CloudFormation to the S3 API. Raises ConfigError for an unknown property."""
    unknown = sorted(set(rule) - _RULE)
    if unknown:
        what = f"lifecycle rule {rule.get('Id')} has the unknown properties {', '.join(unknown)}"
        raise template_error(what, "remove them, or add them to lifecycle_rule")
    converted: dict[str, object] = {"Status": rule["Status"], "Filter": _filter(rule)}
    if "Id" in rule:
        converted["ID"] = rule["Id"]
    if "ExpirationInDays" in rule:
        converted["Expiration"] = {"Days": rule["ExpirationInDays"]}
    if "ExpiredObjectDeleteMarker" in rule:
        converted["Expiration"] = {"ExpiredObjectDeleteMarker": rule["ExpiredObjectDeleteMarker"]}
    for same in ("NoncurrentVersionExpiration", "AbortIncompleteMultipartUpload"):
        if same in rule:
            converted[same] = rule[same]
    return converted


def _filter(rule: Properties) -> dict[str, object]:
    tags, prefix = list(rule.get("TagFilters", ())), rule.get("Prefix")
    if len(tags) + (prefix is not None) > 1:
        return {"And": {"Tags": tags, **({} if prefix is None else {"Prefix": prefix})}}
    return {"Tag": tags[0]} if tags else {"Prefix": prefix or ""}


def table(deployment: Deployment, properties: Properties, attributes: Attributes) -> Attributes:
    """Create the table if it does not exist; set point-in-time recovery and time to live."""
    dynamodb, name = deployment.clients("dynamodb"), attributes["Name"]
    if get_or_none(("ResourceNotFoundException",), dynamodb.describe_table, TableName=name) is None:
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


def _table(properties: Properties) -> dict[str, TemplateValue]:
    names = ("AttributeDefinitions", "BillingMode", "KeySchema")
    settings = {name: properties[name] for name in names if name in properties}
    if "SSESpecification" in properties:
        sse = properties["SSESpecification"]
        settings["SSESpecification"] = {
            "Enabled": sse["SSEEnabled"],
            **{n: sse[n] for n in ("SSEType", "KMSMasterKeyId") if n in sse},
        }
    return settings


DEPLOYERS: dict[str, Deployer] = {
    "AWS::KMS::Key": deployer(key, "Description", "EnableKeyRotation", "KeyPolicy"),
    "AWS::KMS::Alias": deployer(alias, "AliasName", "TargetKeyId"),
    "AWS::S3::Bucket": deployer(
        bucket,
        "BucketEncryption",
        "BucketName",
        "LifecycleConfiguration",
        "OwnershipControls",
        "PublicAccessBlockConfiguration",
        "VersioningConfiguration",
    ),
    "AWS::DynamoDB::Table": deployer(
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
