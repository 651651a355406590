-- What is normal for an entity (detector|device|metric), as it held at each moment.
CREATE TABLE `baselines` (
  `entity` STRING,
  `valid_from` BIGINT,
  `source` STRING,
  `center` ARRAY<DOUBLE>,
  `scale` ARRAY<DOUBLE>,
  `valid` AS TO_TIMESTAMP_LTZ(`valid_from`, 3),
  PRIMARY KEY (`entity`) NOT ENFORCED,
  WATERMARK FOR `valid` AS `valid`
) WITH (
  'connector' = 'upsert-kafka',
  'topic' = 'baselines',
  'properties.bootstrap.servers' = '${kafka}',
  'scan.watermark.idle-timeout' = '${idle}',
  'properties.group.id' = '${group}',
  'key.format' = 'json',
  'key.json.ignore-parse-errors' = 'true',
  'value.format' = 'json',
  'value.json.ignore-parse-errors' = 'true'
)
