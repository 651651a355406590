-- Every record of the topic ${name}, one row each, well formed or not; event time comes from possible events alone, and
-- runs ahead by as much as the windows over it are to close later.
CREATE TABLE `${name}_records` (
  ${columns},
  `external` BOOLEAN,
  `fault` STRING,
  `detail` STRING,
  `original` BYTES,
  `ingested_at` TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL,
  `kafka_partition` INT METADATA FROM 'partition' VIRTUAL,
  `kafka_offset` BIGINT METADATA FROM 'offset' VIRTUAL,
  `reason` AS ${reason},
  `rowtime` AS CASE WHEN (${reason}) IS NULL THEN tidewatch_time(${time} + ${ahead_ms}) END,
  WATERMARK FOR `rowtime` AS `rowtime` - ${lateness}
) WITH (
  'connector' = 'kafka',
  'topic' = '${name}',
  'properties.bootstrap.servers' = '${kafka}',
  'scan.watermark.idle-timeout' = '${idle}',
  'properties.group.id' = '${group}',
  'properties.auto.offset.reset' = 'earliest',
  'properties.isolation.level' = 'read_committed',
  'properties.max.partition.fetch.bytes' = '262144',
  'scan.startup.mode' = 'group-offsets',
  'format' = 'tidewatch-avro',
  'tidewatch-avro.schema' = '${schema}',
  'tidewatch-avro.inside' = '${inside}'
)
