{{- /*
The labels of an object of one of the parts, as a flow mapping:
include "secretmanager.labels" (list $ "provider").
*/ -}}
{{- define "secretmanager.labels" -}}
{{- $root := index . 0 -}}
{app.kubernetes.io/name: {{ $root.Values.name }}-{{ index . 1 }}, app.kubernetes.io/part-of: secretmanager
{{- range $key, $value := $root.Values.commonLabels }}, {{ $key | quote }}: {{ $value | quote }}{{ end }}}
{{- end -}}

{{- /* Those of a part's pods, which have further ones of their own. */ -}}
{{- define "secretmanager.podLabels" -}}
{{- $root := index . 0 -}}
{{- $part := index . 1 -}}
{app.kubernetes.io/name: {{ $root.Values.name }}-{{ $part }}, app.kubernetes.io/part-of: secretmanager
{{- range $key, $value := merge (dict) (index $root.Values $part).podLabels $root.Values.commonLabels }}, {{ $key | quote }}: {{ $value | quote }}{{ end }}}
{{- end -}}

{{- /* What a part's pods are selected by. It cannot be changed later. */ -}}
{{- define "secretmanager.selector" -}}
{app.kubernetes.io/name: {{ (index . 0).Values.name }}-{{ index . 1 }}}
{{- end -}}

{{- /*
What the names of cluster-wide objects end with, so that no two releases share one.
The release that the docs install has none, which keeps its names short.
*/ -}}
{{- define "secretmanager.clusterSuffix" -}}
{{- if not (and (eq .Release.Name "secretmanager") (eq .Release.Namespace "secretmanager-system")) -}}
.{{ .Release.Name }}.{{ .Release.Namespace }}
{{- end -}}
{{- end -}}

{{- define "secretmanager.rotatorClusterRole" -}}
{{ .Values.name }}-rotator{{ include "secretmanager.clusterSuffix" . }}
{{- end -}}

{{- define "secretmanager.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}
