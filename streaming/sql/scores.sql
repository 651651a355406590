-- Every window of a device that a model scored, with what the model said; of several metrics, the one that weighs most.
SELECT
  `use_case`, `detector`, `device_id`, `metric`[`r`.`place`] AS `metric`, `window_start`, `window_end`, `window_end_ms`, `rowtime`,
  `r`.`score` AS `score`, `r`.`anomalous` AS `anomalous`, `r`.`model_version` AS `model_version`, `r`.`baseline` AS `baseline`,
  `r`.`top_signals` AS `top_signals`, `r`.`top_observed` AS `top_observed`, `r`.`top_expected` AS `top_expected`,
  `r`.`top_shares` AS `top_shares`, `r`.`signals` AS `signals`, `r`.`expected` AS `expected`,
  `r`.`usual_low` AS `usual_low`, `r`.`usual_high` AS `usual_high`,
  `r`.`shadow_version` AS `shadow_version`, `r`.`shadow_score` AS `shadow_score`, `r`.`shadow_anomalous` AS `shadow_anomalous`,
  `r`.`severity` AS `severity`,
  CASE WHEN `r`.`reason` = '' OR `metric`[`r`.`place`] = '' THEN `r`.`reason` ELSE CONCAT(`metric`[`r`.`place`], ': ', `r`.`reason`) END AS `reason`
FROM (
  SELECT *, tidewatch_score(`asked`, `inputs`, `source`, `baseline`) AS `r`
  FROM `matched`
)
WHERE `r`.`score` IS NOT NULL
