"""Deployers for queues, topics, subscriptions and their policies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_app.local.deployers.deployer import Deployer, Deployment, attribute_text, deployer, get_or_none
from stream_app.local.deployers.intrinsics import Attributes, Properties

if TYPE_CHECKING:
    from mypy_boto3_sqs.literals import QueueAttributeNameType

_QUEUE: tuple[QueueAttributeNameType, ...] = (
    "ContentBasedDeduplication",
    "DeduplicationScope",
    "DelaySeconds",
    "FifoQueue",
    "FifoThroughputLimit",
    "KmsMasterKeyId",
    "MaximumMessageSize",
    "MessageRetentionPeriod",
    "ReceiveMessageWaitTimeSeconds",
    "RedrivePolicy",
    "SqsManagedSseEnabled",
    "VisibilityTimeout",
)
_TOPIC = ("ContentBasedDeduplication", "FifoThroughputScope", "FifoTopic", "KmsMasterKeyId")
_SUBSCRIPTION = ("FilterPolicy", "FilterPolicyScope", "RawMessageDelivery", "RedrivePolicy")
_NO_QUEUE = ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist")


def queue(deployment: Deployment, properties: Properties, attributes: Attributes) -> Attributes:
    """Create the queue, or update the attributes of an existing one."""
    sqs, name = deployment.clients("sqs"), attributes["Name"]
    settings: dict[QueueAttributeNameType, str] = {
        attribute: attribute_text(properties[attribute]) for attribute in _QUEUE if attribute in properties
    }
    existing = get_or_none(_NO_QUEUE, sqs.get_queue_url, QueueName=name)
    if existing is None:
        return {**attributes, "Ref": sqs.create_queue(QueueName=name, Attributes=settings)["QueueUrl"]}
    # FifoQueue can be set only when a queue is created.
    settings.pop("FifoQueue", None)
    sqs.set_queue_attributes(QueueUrl=existing["QueueUrl"], Attributes=settings)
    return {**attributes, "Ref": existing["QueueUrl"]}


def queue_policy(deployment: Deployment, properties: Properties, attributes: Attributes) -> Attributes:
    """Set the policy of each queue that it names."""
    for url in properties["Queues"]:
        policy = attribute_text(properties["PolicyDocument"])
        deployment.clients("sqs").set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
    return attributes


def topic(deployment: Deployment, properties: Properties, attributes: Attributes) -> Attributes:
    """Create the topic. CreateTopic returns an existing topic of the same name."""
    settings = {name: attribute_text(properties[name]) for name in _TOPIC if name in properties}
    arn = deployment.clients("sns").create_topic(Name=attributes["Name"], Attributes=settings)["TopicArn"]
    return {**attributes, "Ref": arn, "TopicArn": arn, "Arn": arn}


def topic_policy(deployment: Deployment, properties: Properties, attributes: Attributes) -> Attributes:
    """Set the policy of each topic that it names."""
    for name in properties["Topics"]:
        policy = attribute_text(properties["PolicyDocument"])
        deployment.clients("sns").set_topic_attributes(
            TopicArn=name, AttributeName="Policy", AttributeValue=policy
        )
    return attributes


def subscription(deployment: Deployment, properties: Properties, attributes: Attributes) -> Attributes:
    """Subscribe the endpoint if it is not subscribed yet; update the subscription's attributes."""
    sns, topic_arn = deployment.clients("sns"), properties["TopicArn"]
    pages = sns.get_paginator("list_subscriptions_by_topic").paginate(TopicArn=topic_arn)
    protocol, endpoint = properties["Protocol"], properties["Endpoint"]
    existing = [
        subscription["SubscriptionArn"]
        for page in pages
        for subscription in page["Subscriptions"]
        if (subscription["Protocol"], subscription["Endpoint"]) == (protocol, endpoint)
    ]
    if existing:
        arn = existing[0]
    else:
        arn = sns.subscribe(
            TopicArn=topic_arn, Protocol=protocol, Endpoint=endpoint, ReturnSubscriptionArn=True
        )["SubscriptionArn"]
    for name in _SUBSCRIPTION:
        if name in properties:
            value = attribute_text(properties[name])
            sns.set_subscription_attributes(SubscriptionArn=arn, AttributeName=name, AttributeValue=value)
    return {**attributes, "Ref": arn}


DEPLOYERS: dict[str, Deployer] = {
    "AWS::SQS::Queue": deployer(queue, "QueueName", *_QUEUE),
    "AWS::SQS::QueuePolicy": deployer(queue_policy, "PolicyDocument", "Queues"),
    "AWS::SNS::Topic": deployer(topic, "TopicName", *_TOPIC),
    "AWS::SNS::TopicPolicy": deployer(topic_policy, "PolicyDocument", "Topics"),
    "AWS::SNS::Subscription": deployer(subscription, "Endpoint", "Protocol", "TopicArn", *_SUBSCRIPTION),
}
