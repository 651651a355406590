-- The model version of each use case, as it held at each moment.
CREATE TABLE `models` (
  `use_case` STRING,
  `version` STRING,
  `valid_from` BIGINT,
  `uri` STRING,
  `valid` AS TO_TIMESTAMP_LTZ(`valid_from`, 3),
  PRIMARY KEY (`use_case`) NOT ENFORCED,
  WATERMARK FOR `valid` AS `valid`
) WITH (
  'connector' = 'upsert-kafka',
  'topic' = 'models',
  'properties.bootstrap.servers' = '${kafka}',
  'scan.watermark.idle-timeout' = '${idle}',
  'properties.group.id' = '${group}',
  'key.format' = 'json',
  'key.json.ignore-parse-errors' = 'true',
  'value.format' = 'json',
  'value.json.ignore-parse-errors' = 'true'
)
