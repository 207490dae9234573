"""Reads every topic of Vorca POS from the beginning, prints each record, ends at the end.

pip install 'confluent-kafka[avro]';  KAFKA=127.0.0.1:9092 REGISTRY=http://127.0.0.1:8081/apis/ccompat/v7 python3 consumer.py
"""
import os, sys
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient, topic_subject_name_strategy
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

registry = SchemaRegistryClient({"url": os.environ["REGISTRY"]})  # every record is read by the schema its id names
decode = AvroDeserializer(registry, conf={"subject.name.strategy": topic_subject_name_strategy})
consumer = Consumer({"bootstrap.servers": os.environ["KAFKA"], "group.id": "example",
                     "enable.auto.commit": False, "enable.partition.eof": True})
topics = consumer.list_topics(timeout=60).topics
names = [name for name in topics if name.startswith("vorca.") and not name.endswith(".dlt")]
unread = {(name, number) for name in names for number in topics[name].partitions}
consumer.assign([TopicPartition(name, number, OFFSET_BEGINNING) for name, number in unread])
while unread:
    message = consumer.poll(60)
    if message is None:
        sys.exit("the broker is silent")
    if message.error() is None:  # a value of None withdraws the key
        value = decode(message.value(), SerializationContext(message.topic(), MessageField.VALUE))
        print(message.topic(), message.partition(), message.offset(), message.key().decode(), value)
    elif message.error().code() == KafkaError._PARTITION_EOF:
        unread.discard((message.topic(), message.partition()))
    else:
        sys.exit(str(message.error()))
