-- Rows of ${name} on their Kafka topic.
CREATE TABLE `topic_${name}` (
  ${columns}
) WITH (
  'connector' = 'kafka',
  'topic' = '${name}',
  'properties.bootstrap.servers' = '${kafka}',
  'key.format' = 'raw',
  'key.fields' = 'device_id',
  'value.format' = 'json',
  'properties.compression.type' = 'lz4',
  'properties.linger.ms' = '20',
  ${guarantee}
)
