{{- /*
The parts that have metrics, as JSON.
*/ -}}
{{- define "secretmanager.scraped" -}}
{{- $parts := list -}}
{{- if .Values.provider.enabled -}}
{{- $parts = append $parts "provider" -}}
{{- end -}}
{{- if and .Values.exporter.enabled .Values.rotator.enabled -}}
{{- $parts = append $parts "exporter" -}}
{{- end -}}
{{- toJson $parts -}}
{{- end -}}
