-- One row a device, detector and window: its metrics side by side, each beside its baseline. The window's own times go
-- through as milliseconds: as times the planner would find them twice under their old names.
SELECT
  `use_case`, `detector`, `device_id`,
  CAST(TO_TIMESTAMP_LTZ(`begins_ms`, 3) AS TIMESTAMP(3)) AS `window_start`,
  CAST(TO_TIMESTAMP_LTZ(`window_end_ms`, 3) AS TIMESTAMP(3)) AS `window_end`,
  `window_end_ms`, `window_time` AS `rowtime`, `version`, `uri`,
  ARRAY_AGG(`metric`) AS `metric`, ARRAY_AGG(`signals`) AS `signals`, ARRAY_AGG(`source`) AS `source`,
  ARRAY_AGG(`center`) AS `center`, ARRAY_AGG(`scale`) AS `scale`
FROM TABLE(TUMBLE(
  DATA => (
    SELECT
      `use_case`, `detector`, `device_id`, EXTRACT(EPOCH FROM `window_start`) * 1000 AS `begins_ms`, `window_end_ms`, `rowtime`,
      `version`, `uri`, `metric`, `signals`, `source`, `center`, `scale`
    FROM `matched`
  ),
  TIMECOL => DESCRIPTOR(`rowtime`),
  SIZE => INTERVAL '1' MINUTE
))
GROUP BY
  `use_case`, `detector`, `device_id`, `begins_ms`, `window_end_ms`, `version`, `uri`,
  `window_start`, `window_end`, `window_time`
