-- The anomalous windows, in the columns that incident merging reads.
SELECT
  `use_case`, `device_id`, `detector`, `metric`,
  tidewatch_millis(`window_start`) AS `window_start_ms`, `window_end_ms`, `rowtime`, `severity`, `score`, `model_version`, `baseline`,
  `top_signals`, `top_observed`, `top_expected`, `top_shares`,
  ${technique} AS `technique`,
  ${title} AS `title`, `reason`
FROM `scores`
WHERE `anomalous`
