-- Each window beside the baseline and the model that held at its end; without a model it goes no further.
SELECT
  s.`use_case`, s.`detector`, s.`device_id`, s.`metric`, s.`window_start`, s.`window_end`, s.`window_end_ms`, s.`rowtime`,
  s.`signals`, m.`version`, m.`uri`, b.`source`, b.`scale`,
  ARRAY_SLICE(
    b.`center`,
    CAST(HOUR(s.`window_end`) AS INT) * CARDINALITY(b.`scale`) + 1,
    (CAST(HOUR(s.`window_end`) AS INT) + 1) * CARDINALITY(b.`scale`)
  ) AS `center`
FROM `signals` AS s
LEFT JOIN `baselines` FOR SYSTEM_TIME AS OF s.`rowtime` AS b ON s.`entity` = b.`entity`
JOIN `models` FOR SYSTEM_TIME AS OF s.`rowtime` AS m ON s.`use_case` = m.`use_case`
