-- The windows of the view ${view}; `handed` says how they are handed over, and to which detectors (Handed.java).
SELECT
  tidewatch_bucket(`device_id`) AS `bucket`, CAST('${handed}' AS STRING) AS `handed`, `device_id`, CAST(${metric} AS STRING) AS `metric`,
  tidewatch_millis(`window_start`) AS `begin_ms`, `window_end_ms` AS `end_ms`, ARRAY[${inputs}] AS `inputs`, `rowtime`
FROM `${view}`
