-- The model version of each use case, from `valid_from` on.
CREATE TABLE `models` (
  `use_case` STRING,
  `version` STRING,
  `valid_from` BIGINT,
  `uri` STRING,
  `shadow_version` STRING,
  `shadow_uri` STRING,
  `rowtime` AS TO_TIMESTAMP_LTZ(COALESCE(`valid_from`, 0) + ${never_late}, 3),
  WATERMARK FOR `rowtime` AS TO_TIMESTAMP_LTZ(`valid_from`, 3)
) WITH (
  'connector' = 'kafka',
  'topic' = 'models',
  'properties.bootstrap.servers' = '${kafka}',
  'scan.startup.mode' = 'earliest-offset',
  'scan.watermark.idle-timeout' = '${idle}',
  'properties.group.id' = '${group}',
  'format' = 'json',
  'json.ignore-parse-errors' = 'true'
)
