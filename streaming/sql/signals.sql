-- The windows of the view ${view} as the detector ${detector} sees them.
SELECT
  '${use_case}' AS `use_case`, '${detector}' AS `detector`, `device_id`, ${metric} AS `metric`,
  `window_start`, `window_end`, `window_end_ms`, `rowtime`,
  ${entity} AS `entity`,
  ${signals} AS `signals`
FROM `${view}`${lookback}
