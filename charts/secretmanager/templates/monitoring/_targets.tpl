{{- /*
The parts that have metrics, as JSON. The exporter is one of them where the chart
has it and it is enabled.
*/ -}}
{{- define "secretmanager.scraped" -}}
{{- $parts := list "provider" -}}
{{- if (.Values.exporter | default dict).enabled -}}
{{- $parts = append $parts "exporter" -}}
{{- end -}}
{{- toJson $parts -}}
{{- end -}}
