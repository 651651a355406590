-- The models, told to every bucket of devices.
SELECT
  `bucket`, `use_case`, `valid_from`, ARRAY[`version`, `uri`, COALESCE(`shadow_version`, ''), COALESCE(`shadow_uri`, '')] AS `model`, `rowtime`
FROM `models`, LATERAL TABLE(tidewatch_buckets()) AS `b` (`bucket`)
