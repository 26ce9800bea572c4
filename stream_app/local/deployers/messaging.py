"""Queues, topics, subscriptions, and who may use them."""

from __future__ import annotations

from stream_app.local.deployers.dependencies import Applied, Deployment, Properties, applied, attempt, text
from stream_app.local.deployers.identity import Attributes

_QUEUE = (
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
    """Make the queue, or bring the one that is there up to date."""
    sqs = deployment.clients("sqs")
    wanted = {name: text(properties[name]) for name in _QUEUE if name in properties}
    there = attempt(_NO_QUEUE, sqs.get_queue_url, QueueName=attributes["Name"])
    if there is None:
        there = sqs.create_queue(QueueName=attributes["Name"], Attributes=wanted)
    else:
        wanted.pop("FifoQueue", None)
        sqs.set_queue_attributes(QueueUrl=there["QueueUrl"], Attributes=wanted)
    return {**attributes, "Ref": there["QueueUrl"]}


def queue_policy(deployment: Deployment, properties: Properties, attributes: Attributes) -> Attributes:
    """Set the policy of each of its queues."""
    for url in properties["Queues"]:
        policy = {"Policy": text(properties["PolicyDocument"])}
        deployment.clients("sqs").set_queue_attributes(QueueUrl=url, Attributes=policy)
    return attributes


def topic(deployment: Deployment, properties: Properties, attributes: Attributes) -> Attributes:
    """Make the topic; SNS gives back the one that is there."""
    wanted = {name: text(properties[name]) for name in _TOPIC if name in properties}
    made = deployment.clients("sns").create_topic(Name=attributes["Name"], Attributes=wanted)
    return {**attributes, "Ref": made["TopicArn"], "TopicArn": made["TopicArn"], "Arn": made["TopicArn"]}


def topic_policy(deployment: Deployment, properties: Properties, attributes: Attributes) -> Attributes:
    """Set the policy of each of its topics."""
    for name in properties["Topics"]:
        policy = text(properties["PolicyDocument"])
        deployment.clients("sns").set_topic_attributes(
            TopicArn=name, AttributeName="Policy", AttributeValue=policy
        )
    return attributes


def subscription(deployment: Deployment, properties: Properties, attributes: Attributes) -> Attributes:
    """Subscribe the endpoint once; what it asks of the delivery is set anew."""
    sns, topic_arn = deployment.clients("sns"), properties["TopicArn"]
    pages = sns.get_paginator("list_subscriptions_by_topic").paginate(TopicArn=topic_arn)
    wanted = properties["Protocol"], properties["Endpoint"]
    same = [s for page in pages for s in page["Subscriptions"] if (s["Protocol"], s["Endpoint"]) == wanted]
    if same:
        its_arn = same[0]["SubscriptionArn"]
    else:
        its_arn = sns.subscribe(
            TopicArn=topic_arn, Protocol=wanted[0], Endpoint=wanted[1], ReturnSubscriptionArn=True
        )["SubscriptionArn"]
    for name in _SUBSCRIPTION:
        if name in properties:
            value = text(properties[name])
            sns.set_subscription_attributes(SubscriptionArn=its_arn, AttributeName=name, AttributeValue=value)
    return {**attributes, "Ref": its_arn}


APPLIED: dict[str, Applied] = {
    "AWS::SQS::Queue": applied(queue, "QueueName", *_QUEUE),
    "AWS::SQS::QueuePolicy": applied(queue_policy, "PolicyDocument", "Queues"),
    "AWS::SNS::Topic": applied(topic, "TopicName", *_TOPIC),
    "AWS::SNS::TopicPolicy": applied(topic_policy, "PolicyDocument", "Topics"),
    "AWS::SNS::Subscription": applied(subscription, "Endpoint", "Protocol", "TopicArn", *_SUBSCRIPTION),
}
