-- The windows of the view ${view}, for the detectors that look at them alike.
SELECT
  tidewatch_bucket(`device_id`) AS `bucket`, CAST('${view}' AS STRING) AS `view`, CAST(ARRAY[${detectors}] AS ARRAY<STRING>) AS `detectors`,
  `device_id`, CAST(${metric} AS STRING) AS `metric`, EXTRACT(EPOCH FROM `window_start`) * 1000 AS `begin_ms`, `window_end_ms` AS `end_ms`,
  ${lookback} AS `lookback`, CAST(${every_ms} AS BIGINT) AS `every_ms`, ARRAY[${inputs}] AS `inputs`, `rowtime`
FROM `${view}`
