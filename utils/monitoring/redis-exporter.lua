-- redis-exporter.lua - the numbers of INFO ocsp for redis_exporter, which knows no fields of modules by itself.
--
-- Usage: redis_exporter -script redis-exporter.lua ... The user needs the permission to run EVAL and INFO. Each field
-- becomes a metric redis_script_values{key="ocsp_revoked"}; ocsp_state, a word, becomes
-- redis_script_values{key="ocsp_state_good"} with the value 1.
--
-- SPDX-License-Identifier: BSD-3-Clause

local out = {}
for name, value in string.gmatch(redis.call('INFO', 'ocsp'), '(ocsp_[%w_]+):([^\r\n]*)') do
    if string.match(value, '^%-?%d+$') and not string.find(name, 'serial') then
        out[#out + 1] = name
        out[#out + 1] = value
    elseif string.match(name, '_state$') then
        out[#out + 1] = name .. '_' .. string.gsub(value, '-', '_')
        out[#out + 1] = '1'
    end
end
return out
