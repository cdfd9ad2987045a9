{{- /*
The parts that have metrics, as JSON.
*/ -}}
{{- define "secretmanager.scraped" -}}
{{- $parts := list "provider" -}}
{{- if and .Values.exporter.enabled .Values.rotator.enabled -}}
{{- $parts = append $parts "exporter" -}}
{{- end -}}
{{- toJson $parts -}}
{{- end -}}
