{{- /* A quantity in Mi, or nothing where it is not of a kind that can be read here. */ -}}
{{- define "secretmanager.mebibytes" -}}
{{- $text := . | default "" | toString -}}
{{- if regexMatch "^[0-9]+Gi$" $text }}{{ mul (trimSuffix "Gi" $text | int64) 1024 }}
{{- else if regexMatch "^[0-9]+Mi$" $text }}{{ trimSuffix "Mi" $text | int64 }}
{{- else if regexMatch "^[0-9]+Ki$" $text }}{{ div (trimSuffix "Ki" $text | int64) 1024 }}
{{- end -}}
{{- end -}}

{{- /* Go's soft limit in Mi: 27 of 32 parts of the hard one; nothing without one. */ -}}
{{- define "secretmanager.softMemory" -}}
{{- with include "secretmanager.mebibytes" (((.Values.provider.resources).limits).memory) -}}
{{ div (mul (int64 .) 27) 32 }}
{{- end -}}
{{- end -}}
