{{- /*
Sets each value that is missing to its default in defaults.json, which is generated from the schema. Helm does that with
values.yaml, but not with --reuse-values, which uses the values of the old release in its place. Every template includes
this first.
*/ -}}
{{- define "secretmanager.defaults" -}}
{{- $values := .Values -}}
{{- range $path, $default := .Files.Get "defaults.json" | fromJson -}}
{{- $parent := $values -}}
{{- $names := splitList "." $path -}}
{{- range initial $names -}}
{{- if not (kindIs "map" (index $parent .)) -}}{{- $_ := set $parent . dict -}}{{- end -}}
{{- $parent = index $parent . -}}
{{- end -}}
{{- if kindIs "invalid" (index $parent (last $names)) -}}{{- $_ := set $parent (last $names) $default -}}{{- end -}}
{{- end -}}
{{- end -}}

{{- /* The values of a field of each object in a list, as a JSON list: include "secretmanager.pluck" (list "name" $list). */ -}}
{{- define "secretmanager.pluck" -}}
{{- $values := list -}}
{{- $field := index . 0 -}}
{{- range index . 1 -}}{{- $values = append $values (index . $field) -}}{{- end -}}
{{- toJson $values -}}
{{- end -}}

{{- /*
The name of the application in labels. It leaves room for a component, such as -provider.
*/ -}}
{{- define "secretmanager.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- /*
The prefix of the names of all objects. It leaves room for suffixes: the name of a CronJob has at most 52 characters.
*/ -}}
{{- define "secretmanager.fullname" -}}
{{- $name := include "secretmanager.name" . -}}
{{- $fullname := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- .Values.fullnameOverride | default $fullname | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- /*
The labels of an object of a component, and further labels that cannot replace them:
include "secretmanager.labels" (list $ "provider" .Values.provider.podLabels).
*/ -}}
{{- define "secretmanager.labels" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $further := gt (len .) 2 | ternary (last .) dict -}}
{{- $standard := include "secretmanager.selectorLabels" . | fromYaml -}}
{{- $_ := set $standard "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") -}}
{{- $_ := set $standard "app.kubernetes.io/version" ($root.Chart.AppVersion | replace "+" "_" | trunc 63 | trimSuffix "-") -}}
{{- $_ := set $standard "app.kubernetes.io/component" $component -}}
{{- $_ := set $standard "app.kubernetes.io/part-of" "secretmanager" -}}
{{- $_ := set $standard "app.kubernetes.io/managed-by" $root.Release.Service -}}
{{- merge $standard $further $root.Values.commonLabels | toYaml -}}
{{- end -}}

{{- /*
The labels that select the pods of a component. A selector is immutable, so an upgrade must not change them.
*/ -}}
{{- define "secretmanager.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "secretmanager.name" $root }}-{{ index . 1 }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
{{- end -}}

{{- /*
The suffix of the names of cluster-scoped objects, so that no two releases share one. The release that the
documentation installs has none, which keeps its names short.
*/ -}}
{{- define "secretmanager.clusterSuffix" -}}
{{- if not (and (eq .Release.Name "secretmanager") (eq .Release.Namespace "secretmanager-system")) -}}
.{{ .Release.Name }}.{{ .Release.Namespace }}
{{- end -}}
{{- end -}}

{{- /* The name of the cluster role and of the admission policy of the rotator. */ -}}
{{- define "secretmanager.rotatorClusterRole" -}}
{{ include "secretmanager.fullname" . }}-rotator{{ include "secretmanager.clusterSuffix" . }}
{{- end -}}

{{- /* The name of the service account of a component. */ -}}
{{- define "secretmanager.serviceAccountName" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- (index $root.Values $component).serviceAccount.name | default (printf "%s-%s" (include "secretmanager.fullname" $root) $component) -}}
{{- end -}}

{{- /* The metadata of the service account of a component. */ -}}
{{- define "secretmanager.serviceAccount" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "secretmanager.serviceAccountName" . }}
  labels:
    {{- include "secretmanager.labels" . | nindent 4 }}
  {{- with (index (index . 0).Values (index . 1)).serviceAccount.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- define "secretmanager.image" -}}
{{- with .Values.global.imageRegistry | default .Values.image.registry }}{{ . }}/{{ end -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- /* The fields that every component has in the spec of its pods. */ -}}
{{- define "secretmanager.podSpec" -}}
{{- $root := index . 0 -}}
{{- $component := index $root.Values (index . 1) -}}
serviceAccountName: {{ include "secretmanager.serviceAccountName" . }}
enableServiceLinks: false
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
{{- toYaml . | nindent 0 }}
{{- end }}
{{- with $component.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- if $component.hostNetwork }}
hostNetwork: true
{{- end }}
{{- with $component.dnsPolicy | default ($component.hostNetwork | default false | ternary "ClusterFirstWithHostNet" "") }}
dnsPolicy: {{ . }}
{{- end }}
{{- with $component.tolerations }}
tolerations:
{{- toYaml . | nindent 0 }}
{{- end }}
nodeSelector:
  {{- merge dict $component.nodeSelector (dict "kubernetes.io/os" "linux") | toYaml | nindent 2 }}
{{- with $component.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $component.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* The fields that every component has in its container. */ -}}
{{- define "secretmanager.container" -}}
{{- $root := index . 0 -}}
{{- $component := index $root.Values (index . 1) -}}
image: {{ include "secretmanager.image" $root }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
{{- with $component.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $security := $component.securityContext }}
{{- if $component.securityContextConstraints }}
{{- $security = merge dict (omit $security "seLinuxOptions") (dict "seLinuxOptions" (merge dict ($security.seLinuxOptions | default dict) (dict "type" "spc_t"))) }}
{{- end }}
{{- with $security }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* The update strategy of a component. Only a rolling update has parameters. */ -}}
{{- define "secretmanager.updateStrategy" -}}
{{- (eq .type "RollingUpdate") | ternary . (omit . "rollingUpdate") | toYaml -}}
{{- end -}}

{{- /* A quantity in Mi, or nothing if it is not a whole number of Ki, Mi or Gi. */ -}}
{{- define "secretmanager.mebibytes" -}}
{{- $text := . | default "" | toString -}}
{{- if regexMatch "^[0-9]+Gi$" $text }}{{ mul (trimSuffix "Gi" $text | int64) 1024 }}
{{- else if regexMatch "^[0-9]+Mi$" $text }}{{ trimSuffix "Mi" $text | int64 }}
{{- else if regexMatch "^[0-9]+Ki$" $text }}{{ div (trimSuffix "Ki" $text | int64) 1024 }}
{{- end -}}
{{- end -}}

{{- /* Go's soft memory limit in Mi: 27/32 of the memory limit, or nothing without one. */ -}}
{{- define "secretmanager.softMemory" -}}
{{- with include "secretmanager.mebibytes" (((.Values.provider.resources).limits).memory) -}}
{{ div (mul (int64 .) 27) 32 }}
{{- end -}}
{{- end -}}

{{- /*
Whether the release has an object of the rotator's state, as "true" or "". The arguments are the root, apiVersion, kind
and name. Somebody who rotated by hand before the installation has created these objects, and Helm refuses to install
over them. Such objects stay as they are, also when the release is uninstalled. Without a cluster, as with
`helm template`, lookup finds nothing, and the release has the object.
*/ -}}
{{- define "secretmanager.ownsState" -}}
{{- $existing := lookup (index . 1) (index . 2) (index . 0).Release.Namespace (index . 3) -}}
{{- if or (not $existing) (hasKey ($existing.metadata.annotations | default dict) "meta.helm.sh/release-name") -}}
true
{{- end -}}
{{- end -}}

{{- /* The components that serve metrics, as a JSON list. */ -}}
{{- define "secretmanager.scraped" -}}
{{- $components := list -}}
{{- if .Values.provider.enabled -}}
{{- $components = append $components "provider" -}}
{{- end -}}
{{- if and .Values.exporter.enabled .Values.rotator.enabled -}}
{{- $components = append $components "exporter" -}}
{{- end -}}
{{- toJson $components -}}
{{- end -}}

{{- /*
A CEL expression for admission policies: whether a value, as base64, has the format of transit ciphertext. The argument
is an expression of the value.

A ciphertext is "vault:v", a number from 1 with at most six digits, ":" and more. Base64 makes four letters of three
characters: "vau" is dmF1, "lt:" is bHQ6, and "v1" to "v9" are dj[EIMQUYcgk] with the letter after them, which is 6 if
the third character is a colon, and [w-z0-5] if it is a digit. A digit at the beginning of three characters is
[MN][DTjz] or O[DT], and [AEIMQUYcgk] in their middle; O[i-n] and [op] are colons there. The expression does not match
the whole value, because its cost is limited and a Secret can have a megabyte. The shortest ciphertext has 49 bytes,
which are 68 letters.
*/ -}}
{{- define "secretmanager.isCiphertext" -}}
size({{ . }}) >= 68 && {{ . }}.startsWith('dmF1bHQ6dj') &&
{{ . }}.substring(10, 19).matches(
'^[EIMQUYcgk](6|[w-z0-5](O[i-n]|([MN][DTjz]|O[DT])([op]|[AEIMQUYcgk](6|[w-z0-5](O[i-n]|([MN][DTjz]|O[DT])[op])))))')
{{- end -}}
