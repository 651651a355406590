-- One row a device, detector and window: its metrics side by side, each beside its baseline.
SELECT
  `use_case`, `detector`, `device_id`, `begins` AS `window_start`, `ends` AS `window_end`, `window_end_ms`,
  `window_time` AS `rowtime`, `version`, `uri`,
  ARRAY_AGG(`metric`) AS `metric`, ARRAY_AGG(`signals`) AS `signals`, ARRAY_AGG(`source`) AS `source`,
  ARRAY_AGG(`center`) AS `center`, ARRAY_AGG(`scale`) AS `scale`
FROM TABLE(TUMBLE(
  DATA => (
    SELECT
      `use_case`, `detector`, `device_id`, `window_start` AS `begins`, `window_end` AS `ends`, `window_end_ms`, `rowtime`,
      `version`, `uri`, `metric`, `signals`, `source`, `center`, `scale`
    FROM `matched`
  ),
  TIMECOL => DESCRIPTOR(`rowtime`),
  SIZE => INTERVAL '1' MINUTE
))
GROUP BY
  `use_case`, `detector`, `device_id`, `begins`, `ends`, `window_end_ms`, `version`, `uri`,
  `window_start`, `window_end`, `window_time`
