-- Outages, as the ticker tells them (tidewatch/outage.py); their time is the wall clock's.
CREATE TABLE `outages` (
  `alert_id` STRING,
  `use_case` STRING,
  `start` BIGINT,
  `end` BIGINT,
  `status` STRING,
  `title` STRING,
  `reason` STRING,
  `rowtime` AS TO_TIMESTAMP_LTZ(`end`, 3),
  WATERMARK FOR `rowtime` AS `rowtime`
) WITH (
  'connector' = 'kafka',
  'topic' = 'outages',
  'properties.bootstrap.servers' = '${kafka}',
  'scan.watermark.idle-timeout' = '${idle}',
  'properties.group.id' = '${group}',
  'properties.auto.offset.reset' = 'earliest',
  'scan.startup.mode' = 'group-offsets',
  'format' = 'json',
  'json.ignore-parse-errors' = 'true'
)
