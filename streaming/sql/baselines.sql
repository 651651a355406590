-- What is normal for an entity (detector|device|metric), from `valid_from` on.
CREATE TABLE `baselines` (
  `entity` STRING,
  `device_id` STRING,
  `valid_from` BIGINT,
  `source` STRING,
  `center` ARRAY<DOUBLE>,
  `scale` ARRAY<DOUBLE>,
  `bucket` AS tidewatch_bucket(`device_id`),
  `rowtime` AS TO_TIMESTAMP_LTZ(COALESCE(`valid_from`, 0) + ${never_late}, 3),
  WATERMARK FOR `rowtime` AS TO_TIMESTAMP_LTZ(`valid_from`, 3)
) WITH (
  'connector' = 'kafka',
  'topic' = 'baselines',
  'properties.bootstrap.servers' = '${kafka}',
  'scan.startup.mode' = 'earliest-offset',
  'scan.watermark.idle-timeout' = '${idle}',
  'properties.group.id' = '${group}',
  'format' = 'json',
  'json.ignore-parse-errors' = 'true'
)
