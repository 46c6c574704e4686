"""The shaders of the renderer: people, things, and shadows on the ground."""

from __future__ import annotations

_NOISE = """
float hash3(vec3 p) {
  p = fract(p * vec3(.1031, .1030, .0973));
  p += dot(p, p.yxz + 33.33);
  return fract((p.x + p.y) * p.z);
}
float noise3(vec3 p) {
  vec3 i = floor(p), f = fract(p);
  f = f * f * (3. - 2. * f);
  return mix(
    mix(mix(hash3(i), hash3(i + vec3(1, 0, 0)), f.x),
        mix(hash3(i + vec3(0, 1, 0)), hash3(i + vec3(1, 1, 0)), f.x), f.y),
    mix(mix(hash3(i + vec3(0, 0, 1)), hash3(i + vec3(1, 0, 1)), f.x),
        mix(hash3(i + vec3(0, 1, 1)), hash3(i + vec3(1, 1, 1)), f.x), f.y), f.z);
}
// The same noise in w with its slope in xyz.
vec4 sloping(vec3 p) {
  vec3 i = floor(p), f = fract(p), u = f * f * (3. - 2. * f);
  float a = hash3(i), b = hash3(i + vec3(1, 0, 0)), c = hash3(i + vec3(0, 1, 0)), d = hash3(i + vec3(1, 1, 0));
  float e = hash3(i + vec3(0, 0, 1)), g = hash3(i + vec3(1, 0, 1)), h = hash3(i + vec3(0, 1, 1)), j = hash3(i + 1.);
  float x = b - a, y = c - a, z = e - a, xy = a - b - c + d, yz = a - c - e + h, xz = a - b - e + g;
  float xyz = -a + b + c - d + e - g - h + j;
  vec3 slope = 6. * f * (1. - f) * vec3(x + xy * u.y + xz * u.z + xyz * u.y * u.z,
    y + yz * u.z + xy * u.x + xyz * u.z * u.x, z + xz * u.x + yz * u.y + xyz * u.x * u.y);
  float value = a + x * u.x + y * u.y + z * u.z + xy * u.x * u.y + yz * u.y * u.z + xz * u.z * u.x
    + xyz * u.x * u.y * u.z;
  return vec4(slope, value);
}
// How much of a cloth's second colour shows; the kinds are looks.Pattern.
float pattern(vec3 c, int kind, float scale, float seed) {
  if (kind == 1) return step(.5, fract(c.z * scale));
  if (kind == 2) return step(.82, fract(c.x * scale * 1.5));
  if (kind == 3) return .5 * step(.5, fract(c.z * scale)) + .5 * step(.5, fract(c.x * scale));
  if (kind == 4) return step(.55, noise3(c * scale * .8 + seed));
  if (kind == 5) return noise3(c * scale * 5. + seed);
  if (kind == 6)
    return step(.6, noise3(c * 24. + seed)) * step(abs(c.x), .12) * step(c.y, 0.) * step(abs(c.z - 1.25), .13);
  if (kind == 7) return step(1.05 + .3 * fract(seed), c.z);
  return 0.;
}
"""

_LIGHT = """
uniform vec3 sun, sun_colour, sky_colour, ground_colour, lamp, lamp_colour, eye_position;
// Light on a matt surface in linear colour: a sun, a lamp at a place, and light from above and below.
vec3 lit(vec3 normal, vec3 place) {
  vec3 to_lamp = lamp - place;
  float near = 1. / (1. + .25 * dot(to_lamp, to_lamp));
  return mix(ground_colour, sky_colour, .5 + .5 * normal.z)
    + sun_colour * max(dot(normal, sun), 0.)
    + lamp_colour * near * (.25 + .75 * max(dot(normal, normalize(to_lamp)), 0.));
}
vec3 linear(vec3 c) { return pow(c, vec3(2.2)); }
vec3 shown(vec3 c) { return pow(clamp(c, 0., 1.), vec3(1. / 2.2)); }
"""

PERSON_VERTEX = """
#version 330
in vec3 position, normal, canonical;
in vec2 along;
in float part, vertex;
uniform mat4 view;
out vec3 f_place, f_normal, f_canonical;
out vec2 f_along;
flat out float f_part, f_vertex;
void main() {
  f_place = position; f_normal = normal; f_canonical = canonical; f_along = along; f_part = part; f_vertex = vertex;
  gl_Position = view * vec4(position, 1);
}
"""

PERSON_FRAGMENT = (
    """
#version 330
in vec3 f_place, f_normal, f_canonical;
in vec2 f_along;
flat in float f_part, f_vertex;
uniform int piece, person, top, bottom, over, hair;
uniform vec3 palette[11];
uniform float top_scale, bottom_scale, sleeve, trousers, waist, neckline, glasses, mask, beard, brow, mouth, seed, coat;
uniform vec3 eye;      // the canonical body's left eye
uniform float head_y;  // and the middle of its head
layout(location = 0) out vec4 colour;
layout(location = 1) out uvec2 label;
"""
    + _NOISE
    + _LIGHT
    + """
const int SKIN = 0, HAIR = 1, TOP = 2, TOP_SECOND = 3, BOTTOM = 4, BOTTOM_SECOND = 5, SHOES = 6, OVER = 7, HEADWEAR = 8,
  IRIS = 9, LIPS = 10;

vec3 face(vec3 c, vec3 p) {
  float side = abs(p.x), from_eye = p.z - eye.z;
  float lid = length(vec2((side - eye.x) / .019, (from_eye + .001) / .0115));
  c *= mix(.78, 1., smoothstep(.8, 1.3, lid));
  c *= mix(.55, 1., smoothstep(.06, .22, abs(lid - .86) + step(from_eye, 0.) * .1));
  float arch = from_eye - .0195 - .005 * (1. - pow((side - eye.x) / .022, 2.));
  float brows = smoothstep(.003 + .0035 * brow, .0015, abs(arch)) * smoothstep(.025, .02, abs(side - eye.x - .001));
  c = mix(c, palette[HAIR], .85 * brows);
  float width = .019 + .009 * mouth;
  vec2 m = vec2(p.x / width, (from_eye + .0685) / (.0065 + .004 * mouth) * (1. + .6 * abs(p.x) / width));
  c = mix(c, palette[LIPS], .9 * smoothstep(1.1, .8, length(m)));
  c *= mix(.5, 1., smoothstep(.0006, .0022, abs(from_eye + .0685) + .004 * smoothstep(.8, 1.1, abs(m.x))));
  c *= 1. - .07 * smoothstep(.03, .0, length(vec2(side - .035, from_eye + .035)));
  float chin = smoothstep(-.045, -.062, from_eye) + smoothstep(.05, .065, side) * smoothstep(-.01, -.05, from_eye);
  float lips = smoothstep(.8, 1.2, length(vec2(p.x / .024, (from_eye + .0685) / .009)));
  c = mix(c, palette[HAIR] * (.8 + .4 * noise3(p * 260.)), clamp(chin, 0., 1.) * lips * min(1., beard * 1.3) * .85);
  if (mask > .5 && from_eye < -.024) c = mix(palette[OVER], vec3(.75, .82, .86), .4);
  if (glasses > .5) {
    vec2 g = vec2(side - .033, from_eye * 1.15);
    float frame = smoothstep(.003, .0015, abs(length(g) - .0255));
    frame = max(frame, step(side, .009) * smoothstep(.003, .0015, abs(from_eye - .004)));
    if (fract(glasses * 17.) > .6) c = mix(c, vec3(.03), .85 * step(length(g), .0255));
    c = mix(c, vec3(.04, .035, .03), frame);
  }
  return c;
}

// How much hair grows at a place of the head, without its length.
float hairline(vec3 p) {
  if (hair == 0 || hair > 3) return 0.;
  float edge = .012 * (noise3(p * vec3(160, 160, 60) + seed) - .5);
  float front = smoothstep(.044, .054, p.z - eye.z + edge + .012 * smoothstep(.02, .06, abs(p.x)));
  float temple = smoothstep(-.062, -.050, p.y - head_y + edge) * smoothstep(-.004, .008, p.z - eye.z + edge);
  float back = smoothstep(-.006, .008, p.y - head_y + edge) * smoothstep(-.062, -.045, p.z - eye.z + edge);
  return max(front, max(temple, back));
}

// The colour of somebody at a place of the canonical body, and in the last number how much of it is cloth.
vec4 worn(vec3 p) {
  int part = int(f_part + .5);
  float pores = .94 + .12 * noise3(p * 22. + seed);
  vec3 skin = palette[SKIN] * pores;
  float sleeve_edge = sleeve - f_along.x, leg_edge = trousers - f_along.y;
  if (part == 6) {
    float r = length(vec2(abs(p.x) - eye.x, p.z - eye.z));
    if (p.y > eye.y - .002) return vec4(.7, .6, .55, 0);
    return vec4(r < .0028 ? vec3(.02) : r < .0066 ? palette[IRIS] * (.7 + 60. * r) : vec3(.80, .78, .76), 0);
  }
  if (part == 5 && p.z > neckline) {
    vec3 c = p.y < head_y - .02 ? face(skin, p) : skin;
    float strand = noise3(vec3(p.x * 150., p.y * 150., p.z * 18.) + seed);
    return vec4(mix(c, palette[HAIR] * (.5 + .7 * strand), .92 * hairline(p)), 0);
  }
  if (part == 2) return vec4(skin * (1. - .12 * noise3(p * 120.)), 0);
  if (part == 4) return vec4(mix(palette[SHOES], vec3(.8), step(p.z, .022) * step(.45, fract(seed * .37))), .4);
  if (part == 1) {
    if (sleeve_edge < 0.) return vec4(skin, 0);
    vec3 ring = vec3(p.y * 2., p.y, -f_along.x * .52);
    float hem = 1. - .25 * smoothstep(.03, .02, sleeve_edge);
    vec3 c = mix(palette[TOP], palette[TOP_SECOND], pattern(ring, top == 6 || top == 7 ? 0 : top, top_scale, seed));
    return vec4((over == 2 ? palette[OVER] : c) * hem, 1);
  }
  if (part == 3 || p.z < waist) {
    if (part == 3 && leg_edge < 0.) return vec4(skin, 0);
    float seam = 1. - .2 * smoothstep(.02, .012, leg_edge) - .25 * smoothstep(.012, .008, abs(p.z - waist + .02));
    seam *= 1. - .15 * smoothstep(.004, .002, abs(p.x)) * step(p.y, 0.);
    return vec4(mix(palette[BOTTOM], palette[BOTTOM_SECOND], pattern(p.yxz, bottom, bottom_scale, seed)) * seam, 1);
  }
  float front = step(p.y, head_y);
  float opening = front * .07 * fract(seed * 1.7) * (1. - min(abs(p.x) / .07, 1.));
  if (p.z > neckline - opening) return vec4(skin, 0);
  vec3 c = mix(palette[TOP], palette[TOP_SECOND], pattern(p, top, top_scale, seed));
  c *= 1. - .25 * smoothstep(.012, .006, neckline - opening - p.z);
  if (fract(seed * 3.1) > .6) c *= 1. - .3 * front * smoothstep(.004, .002, abs(p.x));
  if (over == 1) {
    float tape = min(abs(p.z - 1.12), abs(abs(p.x) - .1));
    c = tape < .022 ? vec3(.85, .87, .82) : palette[OVER];
  } else if (over == 2 && !(front > .5 && abs(p.x) < .03 + .06 * (p.z - 1.))) {
    c = palette[OVER];
  } else if (over == 3 && front > .5 && abs(p.x) < .012 + .02 * (1.5 - p.z)) {
    c = palette[OVER];
  } else if (over == 4 && abs(abs(p.x) - .11) < .022 && p.z > 1.1) {
    c = palette[OVER];
  }
  return vec4(c, 1);
}

void main() {
  vec3 p = f_canonical, n = normalize(f_normal);
  if (!gl_FrontFacing) n = -n;
  vec4 c;
  if (piece == 1) {
    float strand = noise3(vec3(p.x * 150., p.y * 150., p.z * 18.) + seed);
    c = vec4(palette[HAIR] * (.55 + .9 * strand), .3);
    if (hair >= 4) c = vec4(palette[HEADWEAR] * (.9 + .2 * noise3(p * 90.)), .8);
  } else if (piece == 2) {
    bool of_top = coat > .5;
    vec3 cloth = of_top ? mix(palette[TOP], palette[TOP_SECOND], pattern(p, top == 6 ? 0 : top, top_scale, seed))
      : mix(palette[BOTTOM], palette[BOTTOM_SECOND], pattern(p, bottom, bottom_scale, seed));
    c = vec4(of_top && over == 2 ? palette[OVER] : cloth, 1);
  } else {
    c = worn(p);
  }
  vec3 q = p * vec3(24, 24, 13) + seed;
  vec4 fold = sloping(q);
  n = normalize(n - c.a * .4 * fold.xyz);
  vec3 towards = normalize(eye_position - f_place);
  float shine = (1. - c.a) * pow(max(dot(reflect(-sun, n), towards), 0.), 24.) * .12;
  float rim = pow(1. - max(dot(n, towards), 0.), 3.);
  vec3 light = lit(n, f_place) * (1. - .3 * rim) * (1. - .14 * c.a * smoothstep(.5, .1, fold.w));
  colour = vec4(shown(linear(clamp(c.rgb, 0., 1.)) * light + sun_colour * shine), 1);
  label = uvec2(uint(person), uint(f_vertex + 1.5));
}
"""
)

THING_VERTEX = """
#version 330
in vec3 position, normal;
uniform mat4 view, place;
out vec3 f_place, f_normal;
void main() {
  vec4 world = place * vec4(position, 1);
  f_place = world.xyz;
  f_normal = inverse(transpose(mat3(place))) * normal;
  gl_Position = view * world;
}
"""

THING_FRAGMENT = (
    """
#version 330
in vec3 f_place, f_normal;
uniform vec3 first, second;
uniform int kind;
uniform float scale, seed;
layout(location = 0) out vec4 colour;
layout(location = 1) out uvec2 label;
"""
    + _NOISE
    + _LIGHT
    + """
void main() {
  vec3 n = normalize(f_normal);
  if (!gl_FrontFacing) n = -n;
  vec3 c = mix(first, second, pattern(f_place + seed, kind, scale, seed));
  c *= .85 + .2 * noise3(f_place * 7. + seed) + .1 * noise3(f_place * 60.);
  colour = vec4(shown(linear(clamp(c, 0., 1.)) * lit(n, f_place)), 1);
  label = uvec2(0u, 0u);
}
"""
)

#: What stands above the ground, flattened along the sun's light onto z = 0. ``place`` is the identity for people.
SHADOW_VERTEX = """
#version 330
in vec3 position;
uniform mat4 view, place;
uniform vec3 sun;
void main() {
  vec3 world = (place * vec4(position, 1)).xyz;
  gl_Position = view * vec4(world.xy - sun.xy / sun.z * world.z, 0, 1);
}
"""

SHADOW_FRAGMENT = """
#version 330
out float dark;
void main() { dark = 1.; }
"""
